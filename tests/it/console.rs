//! The operators' console, as a browser and as programs meet it.

mod access;
mod accessible;
mod amend;
mod calls;
mod health;
mod nasty;
mod orders;
mod plans;
mod server;
mod surplus;
mod walk;
