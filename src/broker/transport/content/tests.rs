use super::*;
use lapin::protocol::basic::parse_properties;
use lapin::types::{AMQPValue, FieldTable};
use proptest::prelude::*;

/// Builds a content header: class, weight and size, then the properties.
fn payload(flags: u16, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    payload.extend(flags.to_be_bytes());
    payload.extend(properties);
    payload
}

fn short(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend(text);
    bytes
}

fn long(inside: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(inside.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(inside);
    bytes
}

fn is_readable_by_the_library(payload: &[u8]) -> bool {
    matches!(parse_properties(&payload[PROPERTIES_AT..]), Ok(([], _)))
}

fn mended(payload: &[u8], bytes_max: usize) -> (Vec<u8>, String) {
    let (mut mended, mut faults) = (payload.to_vec(), Faults::default());
    mend(&mut mended, bytes_max, &mut faults);
    assert!(is_readable_by_the_library(&mended), "{mended:?}");
    assert!(mended.len() <= bytes_max);
    (mended, faults.into_text())
}

const FRAME: usize = 131_064;

#[test]
fn a_text_that_is_not_utf8_is_named_with_its_bytes_and_the_rest_stays() {
    for (bit, name) in [
        (15, "content_type"),
        (14, "content_encoding"),
        (10, "correlation_id"),
        (9, "reply_to"),
        (8, "expiration"),
        (7, "message_id"),
        (5, "type"),
        (4, "user_id"),
        (3, "app_id"),
        (2, "cluster_id"),
    ] {
        let bad = payload(1 << bit, &short(b"rel\xffay \xe2\x82"));
        assert!(!check(&bad), "{name}");
        let (good, faults) = mended(&bad, FRAME);
        assert_eq!(faults, format!(r#"{name} is not UTF-8: "rel\xffay \xe2\x82""#));
        assert_eq!(good, payload(1 << bit, &short(b"rel?ay ??")), "{name}");
    }
}

#[test]
fn names_of_headers_are_looked_at_at_every_depth() {
    let inner = [short(b"i\xff"), vec![b't', 1]].concat();
    let list = [vec![b'F'], long(&inner)].concat();
    let headers = [short(b"x-death"), vec![b'A'], long(&list), short(b"\xc0"), vec![b'S'], long(b"\xff\xfe")].concat();
    let bad = payload(HEADERS_BIT, &long(&headers));
    let (good, faults) = mended(&bad, FRAME);
    assert_eq!(faults, r#"a header's name is not UTF-8: "i\xff"; a header's name is not UTF-8: "\xc0""#);
    let (_, properties) = parse_properties(&good[PROPERTIES_AT..]).unwrap();
    let headers: &FieldTable = properties.headers().as_ref().unwrap();
    assert_eq!(headers.inner().keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["?", "x-death"]);
    assert!(matches!(headers.inner().get("?"), Some(AMQPValue::LongString(text)) if text.as_bytes() == b"\xff\xfe"));
}

#[test]
fn a_header_that_is_too_deep_is_dropped_alone() {
    let nested = |depth: usize| (0..depth).fold(vec![b'V'], |inside, _| [vec![b'A'], long(&inside)].concat());
    let with = |depth: usize| {
        let headers = [short(b"deep"), nested(depth), short(b"n"), vec![b't', 1]].concat();
        payload(HEADERS_BIT | 1 << 3, &[long(&headers), short(b"app")].concat())
    };
    assert!(check(&with(DEPTH_MAX)) && is_readable_by_the_library(&with(DEPTH_MAX)));
    // So deep that a recursive parser could overflow its stack and end the process.
    for depth in [DEPTH_MAX + 1, 25_000] {
        assert!(!check(&with(depth)));
        let (good, faults) = mended(&with(depth), FRAME);
        assert!(faults.contains(r#"the header "deep" of "#) && !faults.contains(r#""n""#), "{faults}");
        assert!(faults.ends_with("bytes was dropped: it nests more than 32 tables or lists"), "{faults}");
        assert_eq!(
            good,
            payload(HEADERS_BIT | 1 << 3, &[long(&[short(b"n"), vec![b't', 1]].concat()), short(b"app")].concat())
        );
    }
}

#[test]
fn headers_that_are_larger_than_a_frame_are_dropped_until_the_rest_fits() {
    let header = |name: &[u8], bytes: usize| [short(name), vec![b'S'], long(&vec![b'x'; bytes])].concat();
    let many: Vec<u8> = (0..100).flat_map(|n| header(format!("small-{n:03}").as_bytes(), 3_000)).collect();
    let headers = [header(b"large", 200_000), header(b"x-death", 6_000), many].concat();
    let bad = payload(HEADERS_BIT | 1 << 7, &[long(&headers), short(b"evt\xff")].concat());
    let (good, faults) = mended(&bad, FRAME);
    assert!(faults.contains(r#"the header "large" of 200011 bytes was dropped"#), "{faults}");
    assert!(faults.len() <= DESCRIPTION_BYTES_MAX + 5, "{}", faults.len());
    let (_, properties) = parse_properties(&good[PROPERTIES_AT..]).unwrap();
    let kept = properties.headers().as_ref().unwrap().inner();
    assert!(kept.contains_key("x-death") && kept.contains_key("small-000") && !kept.contains_key("large"));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "evt?");
}

#[test]
fn a_method_keeps_its_length_and_an_exchange_with_a_name_keeps_one() {
    let mut deliver = [short(b"ctag"), vec![0; 9], short(b"\xff"), short(b"payment.\xe9")].concat();
    let mut faults = Faults::default();
    mend_method((60, 60), &mut deliver, &mut faults);
    assert_eq!(deliver, [short(b"ctag"), vec![0; 9], short(b"?"), short(b"payment.?")].concat());
    let text = faults.into_text();
    assert_eq!(text, r#"the exchange's name is not UTF-8: "\xff"; the routing key is not UTF-8: "payment.\xe9""#);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..Default::default() })]

    /// The check accepts exactly what the library can read. The library can read everything that was mended.
    #[test]
    fn it_agrees_with_the_librarys_parser(
        flags in any::<u16>(),
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 12),
        kinds in proptest::collection::vec(proptest::sample::select(b"tbBsUuIiLlfdDSATFxVq".to_vec()), 0..8),
        bytes in proptest::collection::vec(any::<u8>(), 64),
        flip in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
    ) {
        let mut texts = texts.into_iter().map(|text| {
            // Half of them are valid UTF-8.
            if text.len() % 2 == 0 { short(String::from_utf8_lossy(&text).as_bytes()) } else { short(&text) }
        });
        let mut table = vec![];
        for kind in kinds {
            table.extend(short(b"n"));
            table.push(kind);
            let length = match kind { b't' | b'b' | b'B' => 1, b's' | b'U' | b'u' => 2, b'I' | b'i' | b'f' => 4, b'D' => 5,
                b'l' | b'L' | b'd' | b'T' => 8, _ => 0 };
            match kind {
                b'S' | b'x' => table.extend(long(&bytes[..20])),
                b'A' => table.extend(long(&[b't', 1, b'V'])),
                b'F' => table.extend(long(&[1, bytes[0], b'V'])),
                _ => table.extend(&bytes[..length]),
            }
        }
        let mut properties = vec![];
        for (bit, property) in (2..16).rev().zip(PROPERTIES) {
            if flags & (1 << bit) != 0 {
                match property {
                    Property::Text(_) => properties.extend(texts.next().unwrap_or_default()),
                    Property::Table => properties.extend(long(&table)),
                    Property::Bytes(count) => properties.extend(&bytes[..count]),
                }
            }
        }
        let mut payload = payload(flags, &properties);
        if let Some((index, byte)) = flip {
            let at = PROPERTIES_AT + index.index(payload.len() - PROPERTIES_AT);
            payload[at] = byte;
        }
        prop_assert_eq!(check(&payload), is_readable_by_the_library(&payload), "{:?}", payload);
        let (again, faults) = mended(&payload, FRAME);
        prop_assert_eq!(faults.is_empty(), check(&payload));
        prop_assert_eq!(again == payload, check(&payload));
    }
}
