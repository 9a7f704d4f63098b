//! JSON that is read once and dropped. Texts stay in the received bytes, and fields keep their order.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::borrow::Cow;
use std::fmt;

/// Any JSON. Its texts are borrowed from the bytes, except texts with escapes.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'b> {
    /// The value `null`.
    Null,
    /// The value `true` or `false`.
    Flag(bool),
    /// A number as it is written.
    Number(Number),
    /// A text without its escapes.
    Text(Cow<'b, str>),
    /// A list of values.
    List(Vec<Body<'b>>),
    /// An object. A name may occur several times; the last one counts.
    Object(Vec<(Cow<'b, str>, Body<'b>)>),
}

impl<'b> Body<'b> {
    /// Reads all bytes. Nesting that is too deep for serde_json (128 levels) is an error, too.
    ///
    /// A character that was cut in two (one half of a surrogate pair, such as `\\ud83d`) is read as U+FFFD. It is usually in a text
    /// that nobody needs. [`Object::text`](super::Object::text) refuses it.
    pub fn read(bytes: &'b [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).or_else(|error| match mended(bytes) {
            Some(mended) => serde_json::from_slice::<Body<'_>>(&mended).map(Body::into_owned),
            None => Err(error),
        })
    }

    /// The same, but owned.
    fn into_owned(self) -> Body<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Null => Body::Null,
            Self::Flag(flag) => Body::Flag(flag),
            Self::Number(number) => Body::Number(number),
            Self::Text(text) => Body::Text(owned(text)),
            Self::List(items) => Body::List(items.into_iter().map(Body::into_owned).collect()),
            Self::Object(fields) => {
                Body::Object(fields.into_iter().map(|(name, value)| (owned(name), value.into_owned())).collect())
            }
        }
    }
}

/// The same JSON with U+FFFD for each half of a surrogate pair that stands alone. `None` if there is no such half. The length stays
/// the same.
pub fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut mended = bytes.to_vec();
    let mut is_changed = false;
    let mut at = 0;
    // Only texts contain backslashes. Elsewhere, the JSON reader refuses them.
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        let Some(unit) = escaped_unit(bytes, at) else {
            at += 2;
            continue;
        };
        let is_pair = (0xd800..0xdc00).contains(&unit)
            && escaped_unit(bytes, at + 6).is_some_and(|low| (0xdc00..0xe000).contains(&low));
        if is_pair {
            at += 12;
            continue;
        }
        if (0xd800..0xe000).contains(&unit)
            && let Some(digits) = mended.get_mut(at + 2..at + 6)
        {
            digits.copy_from_slice(b"fffd");
            is_changed = true;
        }
        at += 6;
    }
    is_changed.then_some(mended)
}

/// The sixteen bits of the escape `\\uXXXX` at this place.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(digits).ok().filter(|_| is_hex).and_then(|digits| u16::from_str_radix(digits, 16).ok())
}

impl<'de: 'b, 'b> Deserialize<'de> for Body<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Body<'de>, E> {
        Ok(Body::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Body<'de>, E> {
        Ok(Body::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Body<'de>, E> {
        Ok(Body::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Body<'de>, E> {
        Ok(Body::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Body<'de>, E> {
        Number::from_f64(number).map(Body::Number).ok_or_else(|| E::custom("a number that JSON does not have"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Body<'de>, E> {
        Ok(Body::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Body<'de>, E> {
        Ok(Body::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Body<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Body::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Body<'de>, A::Error> {
        let mut object = Vec::new();
        while let Some(name) = fields.next_key_seed(Name)? {
            object.push((name, fields.next_value()?));
        }
        Ok(Body::Object(object))
    }
}

/// The name of a field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Object, Part};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// As serde_json's own type has it.
    fn owned(part: Part<'_>) -> Value {
        match part {
            Part::Null => Value::Null,
            Part::Flag(flag) => Value::Bool(flag),
            Part::Number(number) => Value::Number(number.clone()),
            Part::Text(text) => Value::String(text.to_owned()),
            Part::List(_) => part.as_array().into_iter().flatten().map(owned).collect(),
            Part::Object(super::super::Fields::Owned(fields)) => Value::Object(fields.clone()),
            Part::Object(super::super::Fields::Read(fields)) => {
                fields.iter().map(|(name, value)| (name.clone().into_owned(), owned(value.into()))).collect()
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn says_what_serde_json_says(value in any_json()) {
            let bytes = serde_json::to_vec(&value).unwrap();
            let reread: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(owned((&Body::read(&bytes).unwrap()).into()), reread);
        }

        #[test]
        fn refuses_what_serde_json_refuses(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mended = mended(&bytes).unwrap_or_else(|| bytes.clone());
            prop_assert_eq!(Body::read(&bytes).is_ok(), serde_json::from_slice::<Value>(&mended).is_ok());
        }

        /// The content of a text. It is read like serde_json, and a text that serde_json refuses for a cut character is read as
        /// well.
        #[test]
        fn only_cut_characters_are_mended(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "\\ud83d", "\\ude00", "\\uDBFF", "\\udfff", "\\ud83d\\ude00", "\\\\", "\\\"", "\\n", "\\u0041", "ud83d", "\\\\ud83d", "x",
                    "\\u00", "\\x", "é",
                ]),
                0..8,
            ),
            is_name in any::<bool>(),
        ) {
            let text = parts.concat();
            let json = if is_name { format!("{{\"{text}\":1}}") } else { format!("[\"{text}\"]") };
            match (serde_json::from_str::<Value>(&json), Body::read(json.as_bytes())) {
                (Ok(value), read) => prop_assert_eq!(owned((&read.unwrap()).into()), value),
                (Err(_), Ok(read)) => {
                    let said = owned((&read).into()).to_string();
                    prop_assert!(said.contains('\u{fffd}'), "{} is read as {}", json, said);
                }
                (Err(_), Err(_)) => {
                    let is_broken = text.contains("\\u00") || text.contains("\\x");
                    prop_assert!(is_broken, "{} is refused", json);
                }
            }
        }
    }

    #[test]
    fn texts_are_borrowed_unless_they_have_escapes() {
        let bytes = br#"{"plain":"a","escap\u0065d":"b\n"}"#;
        let Body::Object(fields) = Body::read(bytes).unwrap() else { panic!("an object") };
        let [(plain, Body::Text(a)), (escaped, Body::Text(b))] = fields.as_slice() else { panic!("two texts") };
        assert!(matches!((plain, a), (Cow::Borrowed("plain"), Cow::Borrowed("a"))));
        assert_eq!((escaped.as_ref(), b.as_ref()), ("escaped", "b\n"));
    }

    #[test]
    fn of_two_fields_of_one_name_the_last_counts_in_either_kind() {
        let text = r#"{"a":1,"a":2,"b":null}"#;
        let (body, value) = (Body::read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        for object in [Object::root(&body).unwrap(), Object::root(&value).unwrap()] {
            assert_eq!(object.integer("a"), Ok(2));
            assert!(object.value("b").is_none() && object.value("c").is_none());
        }
    }

    #[test]
    fn too_deep_is_refused() {
        let deep = "[".repeat(1_000);
        assert!(Body::read(deep.as_bytes()).is_err());
        assert_eq!(owned((&Body::read(b" [1, 2.5] ").unwrap()).into()), json!([1, 2.5]));
        assert!(Body::read(b"1 2").is_err(), "something follows");
    }
}
