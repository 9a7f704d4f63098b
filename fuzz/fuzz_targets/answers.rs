//! What providers answer, or whoever stands in their place.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| grantonce::provider::parse_anything(data));
