//! Random requests to the API: bodies, queries, keys and cursors. The parser must not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| grantonce::api::parse_anything(data));
