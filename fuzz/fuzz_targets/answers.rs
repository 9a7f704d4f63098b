//! Random answers of providers. The parser must not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| grantonce::provider::parse_anything(data));
