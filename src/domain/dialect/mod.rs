//! How providers write what this room means: fields of JSON, units of currencies, words for states.
//!
//! A webhook and the answer to a call of ours say the same things in the same words. Both are read here, so that what
//! is asked joins with what was told.

mod json;
pub mod paypal;
pub mod stripe;

pub use json::{Body, Object, Odd, Part, mended};

#[cfg(test)]
mod tests;
