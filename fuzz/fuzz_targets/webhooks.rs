//! Random webhook bodies, translated as if their signatures were good. Each gives at least one result: a message, a hint, an
//! ignored event or an untranslatable one.

#![no_main]

use grantonce::domain::MessageId;
use grantonce::message::{decode, decode_hint, encode, encode_hint};
use grantonce::webhook::{Endpoint, Terms, Translation, Verified};
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;
use time::macros::datetime;

/// This time is so late that no event is from the future.
const NOW: OffsetDateTime = datetime!(9999-12-01 00:00:00 UTC);
const TERMS: Terms = Terms { livemode: false, is_adyen_captured_by_hand: true };

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let endpoint = Endpoint::ALL[usize::from(*first) % Endpoint::ALL.len()];
    let id = MessageId::new(format!("{}::fuzz", endpoint.path())).unwrap();
    let said = Verified::kept(endpoint, &id, body, NOW, TERMS).translate();
    assert!(!said.is_empty(), "a genuine webhook always has a result");
    for translation in said {
        match translation {
            Translation::Events(events) => {
                for event in events {
                    assert_eq!(event.provider, *endpoint.provider());
                    assert_eq!(decode(&encode(&event).unwrap(), NOW).unwrap(), event);
                }
            }
            Translation::Hint(hint) => assert_eq!(decode_hint(&encode_hint(&hint).unwrap()).unwrap(), hint),
            Translation::Ignored { kind, .. } => assert!(kind.len() <= 80),
            Translation::Untranslatable { detail, .. } => assert!(detail.len() <= 500),
        }
    }
});
