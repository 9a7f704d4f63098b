//! The only user of sqlx.

pub mod scratch;
pub mod witness;
