//! PayPal's signature, and the hints that its events are.

mod events;
mod forged;
mod made;
mod properties;
mod signature;
