//! PayPal's signature, and the hints from its events.

mod events;
mod forge;
mod forged;
mod made;
mod properties;
mod signature;
