//! Reading a provider's JSON: done in one place for webhooks and for the answers to our own calls.

pub(super) use crate::domain::dialect::{Object, Odd};
