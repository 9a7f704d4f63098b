//! What clients of the API send: bodies, queries, keys, cursors.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| grantonce::api::parse_anything(data));
