//! Which letters: the same words in addresses, in forms and in JSON.

use crate::domain::{LetterState, OrderId, Reason, VerdictKind};
use crate::http::{Html, Parameters, Problem, html};
use crate::store::{LetterCursor, LetterFilter};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use std::fmt::Write as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Longest value of one parameter, in bytes.
const VALUE_BYTES_MAX: usize = 512;

/// Most letters that are named one by one.
pub(super) const IDS_MAX: usize = 500;

/// Parameters that may be given once each, and those that may be given again and again.
pub(super) const ONCE: [&str; 14] = [
    "reason", "provider", "cause", "verdict", "order", "payment", "account", "message", "text", "age", "before",
    "since", "after", "chosen",
];
pub(super) const REPEATED: [&str; 2] = ["id", "state"];

/// How old, in words for addresses and for people; longer ago than, shorter ago than.
pub(super) const AGES: [(&str, &str, Option<Duration>, Option<Duration>); 5] = [
    ("under_1h", "in the last hour", None, Some(Duration::HOUR)),
    ("under_1d", "in the last day", None, Some(Duration::DAY)),
    ("over_1h", "more than an hour ago", Some(Duration::HOUR), None),
    ("over_1d", "more than a day ago", Some(Duration::DAY), None),
    ("over_7d", "more than a week ago", Some(Duration::WEEK), None),
];

/// What an address asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) filter: LetterFilter,
    /// Where a page of the list begins.
    pub(super) after: Option<LetterCursor>,
    /// As it was given, empty values left out.
    given: Vec<(String, String)>,
}

impl Selection {
    /// Reads an address. What is misspelt is refused: with less of a filter more letters would be meant.
    pub(super) fn of(parameters: Parameters, now: OffsetDateTime) -> Result<Self, Problem> {
        Self::of_known(parameters, &ONCE, now)
    }

    /// The same of a call, which may say how many it wants.
    pub(super) fn of_call(parameters: Parameters, now: OffsetDateTime) -> Result<Self, Problem> {
        Self::of_known(parameters, &[ONCE.as_slice(), &["limit"]].concat(), now)
    }

    fn of_known(mut parameters: Parameters, known: &[&str], now: OffsetDateTime) -> Result<Self, Problem> {
        let mut given = vec![];
        let mut filter = LetterFilter::default();
        for name in ONCE {
            let Some(value) = parameters.get(name).map(str::trim).filter(|value| !value.is_empty()) else { continue };
            given.push((name.to_owned(), value.to_owned()));
        }
        let mut faults = vec![];
        let mut after = None;
        for (name, value) in &given {
            let text = || Some(value.clone());
            let mut fault = |detail: &str| faults.push((name.clone(), detail.to_owned()));
            if value.len() > VALUE_BYTES_MAX {
                fault(&format!("is longer than {VALUE_BYTES_MAX} bytes"));
            }
            match name.as_str() {
                "reason" if Reason::from_name(value).is_none() => fault("is no reason"),
                "reason" => filter.reason = text(),
                "provider" => filter.provider = text(),
                "cause" => filter.cause = text(),
                "verdict" if VerdictKind::from_name(value).is_none() => fault("is no verdict"),
                "verdict" => filter.verdict = text(),
                "order" => match value.parse::<OrderId>() {
                    Ok(id) => filter.order_id = Some(id.0),
                    Err(_) => fault("is no order's id"),
                },
                "payment" => filter.payment_id = text(),
                "account" => filter.account_id = text(),
                "message" => filter.message_id = text(),
                "text" => filter.text = text(),
                "age" => match AGES.iter().find(|(age, ..)| age == value) {
                    Some((_, _, over, under)) => {
                        filter.before = over.map(|over| now - over);
                        filter.since = under.map(|under| now - under);
                    }
                    None => fault("is no age"),
                },
                "before" | "since" => {
                    match OffsetDateTime::parse(value, &time::format_description::well_known::Rfc3339) {
                        Ok(at) if name == "before" => filter.before = Some(at),
                        Ok(at) => filter.since = Some(at),
                        Err(_) => fault("must be a time such as 2026-01-05T12:00:00Z"),
                    }
                }
                "after" => match read_cursor(value) {
                    Some(place) => after = Some(place),
                    None => fault("must be the `next` of an earlier page"),
                },
                _ => {}
            }
        }
        let mut ids = vec![];
        for value in parameters.all("id") {
            match Uuid::try_parse(value) {
                Ok(id) => ids.push(id),
                Err(_) => faults.push(("id".to_owned(), "is no letter's id".to_owned())),
            }
            given.push(("id".to_owned(), value.to_owned()));
        }
        // From the list: with nothing chosen there all letters would be meant.
        if parameters.get("chosen").is_some() && ids.is_empty() {
            faults.push(("id".to_owned(), "no letter was chosen".to_owned()));
        }
        if ids.len() > IDS_MAX {
            faults.push(("id".to_owned(), format!("at most {IDS_MAX} letters can be named; use a filter")));
        }
        for value in parameters.all("state").filter(|value| !value.is_empty()) {
            match LetterState::from_name(value) {
                Some(_) => filter.states.push(value.to_owned()),
                None if value == "any" => {
                    filter.states = LetterState::ALL.map(|state| state.name().to_owned()).to_vec()
                }
                None => faults.push(("state".to_owned(), "is no state of a letter".to_owned())),
            }
            given.push(("state".to_owned(), value.to_owned()));
        }
        if !ids.is_empty() {
            filter.ids = Some(ids);
        }
        for (name, detail) in faults {
            parameters.fault(&name, detail);
        }
        parameters.check_but(known, &REPEATED)?;
        given.retain(|(name, _)| name != "chosen");
        Ok(Self { filter, after, given })
    }

    /// Reads the field of a form that holds one.
    pub(super) fn of_field(form: &Parameters) -> Result<LetterFilter, Problem> {
        let field = form.get("selection").and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
        let filter = field.and_then(|json| serde_json::from_slice(&json).ok());
        filter.ok_or_else(|| Problem::bad_request("the form does not say which letters are meant"))
    }

    /// The value of a parameter, as it was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether anything narrows it down.
    pub(super) fn is_narrow(&self) -> bool {
        self.given.iter().any(|(name, _)| name != "after")
    }

    /// The address of the same selection below another path, with some parameters set anew; an empty value leaves one
    /// out.
    pub(super) fn at(&self, path: &str, anew: &[(&str, &str)]) -> String {
        let kept = self.given.iter().filter(|(name, _)| name != "after" && anew.iter().all(|(other, _)| other != name));
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        address(path, kept.chain(anew.iter().copied().filter(|(_, value)| !value.is_empty())))
    }

    /// In words, for who is to decide about it.
    pub(super) fn in_words(&self) -> Html {
        let ids = self.filter.ids.as_ref().map_or(0, Vec::len);
        let mut parts = vec![];
        if ids > 0 {
            parts.push(html![(ids)(if ids == 1 {
                " letter that was chosen"
            } else {
                " letters that were chosen one by one"
            })]);
        }
        for (name, value) in self.given.iter().filter(|(name, _)| !matches!(name.as_str(), "id" | "after")) {
            let words = AGES.iter().find(|(age, ..)| name == "age" && age == value).map(|(_, words, ..)| *words);
            let name = if name == "age" { "first seen" } else { name.as_str() };
            parts.push(html![(name) " <code>" (words.unwrap_or(value)) "</code>"]);
        }
        match parts.len() {
            0 => html!["all open letters"],
            _ => Html::all(
                parts.into_iter().enumerate().map(|(at, part)| html![(if at == 0 { "" } else { ", " })[part]]),
            ),
        }
    }
}

/// The address of a page about the letters of a filter.
pub(super) fn address_of(path: &str, filter: &LetterFilter) -> String {
    // A time that Postgres keeps can be written: this cannot fail.
    let time = |at: OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let id = |id: &Uuid| id.to_string();
    let once = [
        ("reason", filter.reason.clone()),
        ("provider", filter.provider.clone()),
        ("cause", filter.cause.clone()),
        ("verdict", filter.verdict.clone()),
        ("order", filter.order_id.as_ref().map(id)),
        ("payment", filter.payment_id.clone()),
        ("account", filter.account_id.clone()),
        ("message", filter.message_id.clone()),
        ("text", filter.text.clone()),
        ("before", filter.before.map(time)),
        ("since", filter.since.map(time)),
    ];
    let once = once.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let ids = filter.ids.iter().flatten().map(|it| ("id", id(it)));
    let states = filter.states.iter().map(|state| ("state", state.clone()));
    let all: Vec<(&str, String)> = once.chain(ids).chain(states).collect();
    address(path, all.iter().map(|(name, value)| (*name, value.as_str())))
}

/// The field of a form that holds a selection. Not the words of its address: a field's line breaks would come back as
/// others.
pub(super) fn field(filter: &LetterFilter) -> Html {
    // Texts, ids and times: this cannot fail.
    let json = serde_json::to_vec(filter).unwrap_or_default();
    html!["<input type=\"hidden\" name=\"selection\" value=\"" {BASE64_URL_SAFE_NO_PAD.encode(json)} "\">"]
}

/// An address with parameters.
pub(super) fn address<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut address = path.to_owned();
    for (at, (name, value)) in parameters.into_iter().enumerate() {
        address.push(if at == 0 { '?' } else { '&' });
        address.push_str(&encoded(name));
        address.push('=');
        address.push_str(&encoded(value));
    }
    address
}

/// A text as a part of an address: nothing in it is read as anything else.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            // Writing to a String cannot fail.
            other => drop(write!(encoded, "%{other:02X}")),
        }
    }
    encoded
}

/// Where the next page begins, as a text.
pub(super) fn cursor(place: LetterCursor) -> String {
    format!("{}.{}", place.first_seen_at.unix_timestamp_nanos() / 1_000, place.id)
}

fn read_cursor(text: &str) -> Option<LetterCursor> {
    let (unix_us, id) = text.split_once('.')?;
    // Postgres does not know all the times that could be written here.
    let unix_us = unix_us.parse::<i64>().ok().filter(|unix_us| *unix_us >= 0)?;
    let first_seen_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1_000).ok()?;
    Some(LetterCursor { first_seen_at, id: id.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Uri;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);

    fn read(query: &str) -> Result<Selection, Problem> {
        Selection::of(Parameters::of(&format!("/x?{query}").parse::<Uri>().unwrap()), NOW)
    }

    #[test]
    fn an_address_says_which_letters_and_says_it_again() {
        let query = "reason=amount_mismatch&cause=order%20%E2%80%A6%20%26%20co%0A&state=open&age=over_1d&text=";
        let selection = read(query).unwrap();
        assert_eq!(selection.filter.reason.as_deref(), Some("amount_mismatch"));
        assert_eq!(selection.filter.cause.as_deref(), Some("order … & co"));
        assert_eq!(selection.filter.before, Some(NOW - Duration::DAY));
        assert_eq!(selection.filter.states, ["open"]);
        let address = selection.at("/replay", &[("state", ""), ("verdict", "would_grant")]);
        let again = read(address.strip_prefix("/replay?").unwrap()).unwrap();
        assert_eq!(again.filter.cause, selection.filter.cause);
        assert_eq!((again.filter.verdict.as_deref(), again.filter.states.len()), (Some("would_grant"), 0));
        assert_eq!(read("").unwrap().filter, LetterFilter::default());
        assert!(!read("after=1.5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f").unwrap().is_narrow());
    }

    #[test]
    fn a_filter_has_an_address_that_says_the_same() {
        let id = Uuid::parse_str("5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f").unwrap();
        let text = |text: &str| Some(text.to_owned());
        let filter = LetterFilter {
            ids: Some(vec![id]),
            states: vec!["open".to_owned()],
            reason: text("amount_mismatch"),
            provider: text("stripe"),
            cause: text("order … & co"),
            verdict: text("would_grant"),
            order_id: Some(id),
            payment_id: text("pi_1"),
            account_id: text("a b"),
            message_id: text("stripe::evt_1"),
            text: text("x%y"),
            before: Some(datetime!(2026-01-05 12:00:00.123456 UTC)),
            since: Some(NOW - Duration::DAY),
        };
        let address = address_of("/replay", &filter);
        assert_eq!(read(address.strip_prefix("/replay?").unwrap()).unwrap().filter, filter);
        assert_eq!(address_of("/replay", &LetterFilter::default()), "/replay");
    }

    #[test]
    fn what_is_misspelt_is_refused_and_does_not_mean_more_letters() {
        for query in [
            "reasn=malformed",
            "reason=mal",
            "verdict=x",
            "order=1",
            "id=1",
            "state=opn",
            "age=old",
            "before=x",
            "after=x",
            "reason=malformed&reason=id_reused",
            "chosen=1",
        ] {
            assert!(read(query).is_err(), "{query}");
        }
        let many = vec!["id=5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"; IDS_MAX + 1].join("&");
        assert!(read(&many).is_err());
    }

    #[tokio::test]
    async fn a_form_gives_back_what_it_was_given() {
        let filter =
            LetterFilter { cause: Some("\u{202e}a\r\n<\"'".to_owned()), before: Some(NOW), ..Default::default() };
        let page = field(&filter);
        let value = page.as_str().split("value=\"").nth(1).unwrap().trim_end_matches("\">");
        let form = Parameters::of_form(format!("selection={value}").into()).await.unwrap();
        assert_eq!(Selection::of_field(&form).unwrap(), filter);
        let nothing = Parameters::of_form("selection=".into()).await.unwrap();
        assert!(Selection::of_field(&nothing).is_err());
    }

    #[test]
    fn a_cursor_leads_where_it_came_from() {
        let id = "5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f".parse().unwrap();
        let place = LetterCursor { first_seen_at: datetime!(2026-01-05 12:00:00.123456 UTC), id };
        assert_eq!(read_cursor(&cursor(place)), Some(place));
        for bad in ["", "1", "-1.5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f", "9223372036854775807.x", "1.x"] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
    }
}
