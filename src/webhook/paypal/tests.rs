//! PayPal's signature, and the hints that its events are.

mod events;
mod forge;
mod forged;
mod made;
mod properties;
mod signature;
