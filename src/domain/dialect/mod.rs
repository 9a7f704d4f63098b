//! Providers' own formats for the facts of this room: fields of JSON, units of currencies, names of states.
//!
//! A webhook and an answer to one of our calls have the same format. Both are read here, so facts from both can be joined.

mod json;
pub mod paypal;
pub mod stripe;

pub use json::{Body, Object, Odd, Part, mended};

#[cfg(test)]
mod tests;
