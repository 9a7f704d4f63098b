//! Random message bodies. Each is read or refused. A body that was read and written again has the same content.

#![no_main]

use grantonce::message::{decode, decode_hint, encode, encode_hint};
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

fuzz_target!(|body: &[u8]| {
    if let Ok(event) = decode(body, NOW) {
        assert_eq!(decode(&encode(&event).unwrap(), NOW).unwrap(), event);
    }
    if let Ok(hint) = decode_hint(body) {
        assert_eq!(decode_hint(&encode_hint(&hint).unwrap()).unwrap(), hint);
    }
});
