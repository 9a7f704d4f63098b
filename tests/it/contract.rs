//! The contract for relays (`contract/`) matches the code.

pub mod schema;

use grantonce::broker::{DEAD_EXCHANGE, DELIVERY_LIMIT, PAYMENTS_EXCHANGE, RETRY_EXCHANGE, WORK_QUEUE};
use grantonce::domain::{
    AMOUNT_MINOR_MAX, Breakdown, CaptureState, Currency, DisputeState, FactId, MessageId, Money, OrderId, PaymentEvent,
    PaymentId, PaymentStatus, Provider, ProviderAccount, RELATED_IDS_MAX, Reason, RefundState,
};
use grantonce::message::{self, BODY_BYTES_MAX, decode, encode};
use proptest::prelude::*;
use schema::Schema;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

const RELAYS: &str = include_str!("../../docs/relays.md");

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(serde_json::from_str(&read("payment-status.v1.schema.json")).unwrap()));

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("contract/{name}: {error}"))
}

/// The examples by their names.
fn examples() -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder().join("examples")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.trim_end_matches(".json").to_owned(), read(&format!("examples/{name}")))).collect()
}

fn valid_examples() -> BTreeMap<String, Value> {
    let valid = examples().into_iter().filter(|(name, _)| !name.starts_with("invalid-"));
    valid.map(|(name, body)| (name, serde_json::from_str(&body).unwrap())).collect()
}

/// The names of `status.type` that the code reads. It lists them when it gets another name.
fn types_of_the_code() -> BTreeSet<String> {
    let body = json!({
        "provider": "a", "message_id": "a:1", "payment_id": "p", "status": {"type": ""}, "occurred_at": "2026-01-05T12:00:00Z",
        "livemode": true
    });
    let refusal = decode(body.to_string().as_bytes(), NOW).unwrap_err().to_string();
    let (_, listed) = refusal.split_once("expected one of ").unwrap();
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The schema's statuses by the names of their types.
fn statuses_of_the_schema() -> BTreeMap<String, &'static Value> {
    let statuses = SCHEMA.root()["properties"]["status"]["oneOf"].as_array().unwrap().iter();
    let named = statuses.map(|status| SCHEMA.resolved(status)).map(|status| {
        let name = status["properties"]["type"]["const"].as_str().unwrap();
        (name.to_owned(), status)
    });
    named.collect()
}

#[test]
fn each_example_is_what_its_name_says_to_the_code_and_to_the_schema() {
    for (name, body) in examples() {
        let decoded = decode(body.as_bytes(), NOW);
        let checked = SCHEMA.check(&serde_json::from_str(&body).unwrap());
        let (is_valid, is_valid_to_a_schema) = match name.strip_prefix("invalid-") {
            None => (true, true),
            Some(why) => (false, why.starts_with("beyond-a-schema-")),
        };
        assert_eq!(decoded.is_ok(), is_valid, "{name}: {decoded:?}");
        assert_eq!(checked.is_ok(), is_valid_to_a_schema, "{name}: {checked:?}");
    }
}

#[test]
fn every_status_has_an_example_and_a_schema() {
    let statuses: BTreeSet<_> = statuses_of_the_schema().into_keys().collect();
    assert_eq!(statuses, types_of_the_code());
    let examples = valid_examples();
    for name in &statuses {
        assert!(examples.contains_key(name), "contract/examples/{name}.json is missing");
    }
    for (file, example) in examples {
        let name = example["status"]["type"].as_str().unwrap();
        assert!(file.starts_with(name), "{file} is an example of {name}");
    }
}

/// The first two cells of each row of the page's table whose header begins with this cell.
fn rows_of_the_page(header: &str) -> BTreeMap<String, &'static str> {
    let (_, table) = RELAYS.split_once(&format!("\n| {header} |")).unwrap();
    let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.map(|(name, rest)| (name.to_owned(), rest.split('|').next().unwrap())).collect()
}

#[test]
fn the_page_about_relays_has_every_field_and_every_status() {
    let example = RELAYS.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    decode(example.as_bytes(), NOW).unwrap();
    SCHEMA.check(&serde_json::from_str(example).unwrap()).unwrap();

    let fields: BTreeSet<_> = SCHEMA.root()["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(rows_of_the_page("field").into_keys().collect::<BTreeSet<_>>(), fields);
    let of_the_schema = statuses_of_the_schema().into_iter().map(|(name, status)| {
        let required = status["required"].as_array().unwrap();
        let fields = status["properties"].as_object().unwrap().keys().filter(|field| *field != "type");
        let shown = fields.map(|field| format!("`{field}`{}", if required.contains(&json!(field)) { "" } else { "?" }));
        (name, shown.collect::<BTreeSet<_>>())
    });
    let of_the_page = rows_of_the_page("`status.type`").into_iter().map(|(name, fields)| {
        let fields = fields.split(',').map(str::trim).filter(|field| !field.is_empty());
        (name, fields.map(str::to_owned).collect::<BTreeSet<_>>())
    });
    assert_eq!(of_the_page.collect::<BTreeMap<_, _>>(), of_the_schema.collect());
}

#[test]
fn a_field_changed_is_refused_by_both_or_by_neither() {
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(AMOUNT_MINOR_MAX),
        json!(AMOUNT_MINOR_MAX + 1),
        json!(u32::MAX),
        json!(u64::from(u32::MAX) + 1),
        json!(u64::MAX),
        json!(""),
        json!(" "),
        json!("x"),
        json!("acme-pay:x"),
        json!("acme-pay:"),
        json!("acme-pay"),
        json!("Acme"),
        json!("\u{a0}x"),
        json!("x\u{85}y"),
        json!("x".repeat(255)),
        json!("x".repeat(256)),
        json!("EUR"),
        json!("XXX"),
        json!("usd"),
        json!([]),
        json!(["x"]),
        json!([""]),
        json!([1]),
        json!(vec!["x"; RELATED_IDS_MAX]),
        json!(vec!["x"; RELATED_IDS_MAX + 1]),
        json!({}),
        json!({"type": "pending"}),
        json!({"type": "failed"}),
        json!("pending"),
        json!("succeeded"),
        json!("failed"),
        json!("open"),
        json!("refund"),
        json!("canceled"),
        json!("2026-01-05T12:00:00Z"),
        json!("2026-01-05t12:00:00.123456789-23:59"),
        json!("2026-01-05 12:00:00"),
        json!("2026-01-05"),
        json!("019b8e6f-5c00-7b3a-9d2e-3f1c0a7b5d42"),
        json!("019B8E6F-5C00-7B3A-9D2E-3F1C0A7B5D42"),
        json!("{019b8e6f-5c00-7b3a-9d2e-3f1c0a7b5d42}"),
        json!("urn:uuid:019b8e6f-5c00-7b3a-9d2e-3f1c0a7b5d42"),
    ];
    let mut tried = 0;
    for (name, example) in valid_examples() {
        for pointer in ["", "/status", "/status/breakdown"] {
            let Some(object) = example.pointer(pointer) else { continue };
            for field in object.as_object().unwrap().keys() {
                for other in others.iter().map(Some).chain([None]) {
                    let mut changed = example.clone();
                    let object = changed.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
                    match other {
                        Some(other) => drop(object.insert(field.clone(), other.clone())),
                        None => drop(object.remove(field)),
                    }
                    // Rules between two fields. No schema can express them.
                    let tax = changed["status"]["breakdown"]["tax_minor"].as_i64();
                    if tax.zip(changed["status"]["amount_minor"].as_i64()).is_some_and(|(tax, all)| tax > all) {
                        continue;
                    }
                    let provider = changed["provider"].as_str().unwrap_or_default();
                    let own = |id: &str| id.strip_prefix(provider).is_some_and(|rest| rest.starts_with(':'));
                    if changed["message_id"].as_str().is_some_and(|id| !own(id)) {
                        continue;
                    }
                    let decoded = decode(changed.to_string().as_bytes(), NOW).map_err(|error| error.to_string());
                    let checked = SCHEMA.check(&changed);
                    assert_eq!(
                        decoded.is_ok(),
                        checked.is_ok(),
                        "{name}{pointer}/{field} = {other:?}: {decoded:?}, {checked:?}"
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 4_000, "only {tried} changes tried");
}

#[test]
fn the_schemas_bounds_are_the_codes() {
    let root = SCHEMA.root();
    assert_eq!(root["title"], message::TYPE);
    assert_eq!(root["$defs"]["amount_minor"]["maximum"], AMOUNT_MINOR_MAX);
    assert_eq!(root["properties"]["related_ids"]["maxItems"], RELATED_IDS_MAX);
    assert!(root["description"].as_str().unwrap().contains(&format!("{BODY_BYTES_MAX} bytes")));

    let letters = || b'A'..=b'Z';
    let codes = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
    let ours: Vec<Value> = codes
        .map(|code| String::from_utf8(code.to_vec()).unwrap())
        .filter(|code| Currency::new(code).is_ok())
        .map(Value::from)
        .collect();
    assert_eq!(root["$defs"]["currency"]["enum"], Value::from(ours));
}

#[test]
fn every_field_is_described_with_examples_that_are_valid() {
    let mut objects = statuses_of_the_schema();
    objects.insert("$".to_owned(), SCHEMA.root());
    for (of, object) in objects {
        assert!(object["description"].is_string(), "{of} has no description");
        for (name, field) in object["properties"].as_object().unwrap() {
            let at = format!("{of}.{name}");
            assert!(field["description"].is_string(), "{at} has no description");
            // A constant, or a choice of objects with examples of their own, is its own example.
            if field.get("const").is_some() || field.get("oneOf").is_some() {
                continue;
            }
            let examples = field["examples"].as_array().unwrap_or_else(|| panic!("{at} has no examples"));
            for example in examples.iter().chain(field.get("default")) {
                assert_eq!(SCHEMA.check_against(field, example, &at), Ok(()));
            }
        }
    }
    for example in SCHEMA.root()["examples"].as_array().unwrap() {
        assert_eq!(SCHEMA.check(example), Ok(()));
    }
}

#[test]
fn asyncapi_names_what_the_code_names() {
    let text = read("asyncapi.yaml");
    let words: BTreeSet<&str> = text
        .split(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)))
        .map(|word| word.trim_end_matches('.'))
        .collect();
    let headers = [
        message::ATTEMPT_HEADER,
        message::WAITS_HEADER,
        message::ROUTING_KEY_HEADER,
        message::REASON_HEADER,
        message::DETAIL_HEADER,
        message::ORIGIN_HEADER,
        message::REPLAY_HEADER,
    ];
    let names = [PAYMENTS_EXCHANGE, RETRY_EXCHANGE, DEAD_EXCHANGE, WORK_QUEUE, message::TYPE];
    for name in names.into_iter().chain(headers).chain(Reason::ALL.map(Reason::name)) {
        assert!(words.contains(name), "contract/asyncapi.yaml does not name {name}");
    }
    for header in words.iter().filter(|word| word.starts_with("x-grantonce-") && word.len() > "x-grantonce-".len()) {
        assert!(headers.contains(header), "contract/asyncapi.yaml names {header}, which the code does not");
    }
    assert!(text.contains(&format!("{DELIVERY_LIMIT} times")), "the delivery limit is another one");
}

/// Ids with the characters that providers use, and more.
fn id() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[!-~ä€\u{1F600}]([ -~ä€\u{feff}\u{1F600}]{0,30}[!-~ä€\u{1F600}])?").unwrap()
}

fn money() -> impl Strategy<Value = Money> {
    let amount = prop_oneof![Just(0), Just(AMOUNT_MINOR_MAX), 0..=AMOUNT_MINOR_MAX];
    (amount, proptest::sample::select(vec!["USD", "JPY", "KWD", "CLF", "ZWG"]))
        .prop_map(|(amount, code)| Money::new(amount, Currency::new(code).unwrap()).unwrap())
}

fn fact() -> impl Strategy<Value = FactId> {
    id().prop_map(|id| FactId::new(id).unwrap())
}

fn status() -> impl Strategy<Value = PaymentStatus> {
    use proptest::sample::select;
    let capture = select(vec![CaptureState::Succeeded, CaptureState::Failed]);
    let refund = select(vec![RefundState::Pending, RefundState::Succeeded, RefundState::Failed]);
    let dispute = select(vec![DisputeState::Inquiry, DisputeState::Open, DisputeState::Won, DisputeState::Lost]);
    prop_oneof![
        Just(PaymentStatus::Pending),
        Just(PaymentStatus::Canceled),
        Just(PaymentStatus::PartsCanceled),
        fact().prop_map(|capture_id| PaymentStatus::CaptureCanceled { capture_id }),
        any::<String>().prop_map(|reason| PaymentStatus::failed(&reason)),
        (money(), proptest::option::of(fact()), capture, proptest::option::of((0..=100_i64, 0..=AMOUNT_MINOR_MAX)))
            .prop_map(|(money, capture_id, state, parts)| {
                let breakdown = parts.map(|(percent, discount)| {
                    Breakdown::new(money, money.amount_minor() / 100 * percent, discount).unwrap()
                });
                PaymentStatus::Captured { money, capture_id, state, breakdown }
            }),
        (money(), fact(), refund).prop_map(|(money, refund_id, state)| PaymentStatus::Refund {
            refund_id,
            state,
            money
        }),
        money().prop_map(|money| PaymentStatus::RefundedTotal { money }),
        (money(), fact(), dispute, prop_oneof![1..4_u32, Just(u32::MAX)])
            .prop_map(|(money, dispute_id, state, round)| PaymentStatus::Dispute { dispute_id, state, round, money }),
    ]
}

prop_compose! {
    fn event()(
        provider in "[a-z0-9][a-z0-9_-]{0,31}",
        (message, payment, related) in (id(), id(), proptest::collection::vec(id(), 0..=RELATED_IDS_MAX)),
        account in proptest::option::of(id()),
        order in proptest::option::of(any::<u128>()),
        status in status(),
        (at, nanos) in (0..=NOW.unix_timestamp(), 0..1_000_000_000_i64),
        as_of in proptest::option::of(0..=NOW.unix_timestamp()),
        livemode in any::<bool>(),
    ) -> PaymentEvent {
        PaymentEvent {
            message_id: MessageId::new(format!("{provider}:{message}")).unwrap(),
            provider: Provider::new(provider).unwrap(),
            payment_id: PaymentId::new(payment).unwrap(),
            related_ids: related.into_iter().map(|id| PaymentId::new(id).unwrap()).collect(),
            provider_account: account.map(|id| ProviderAccount::new(id).unwrap()),
            order_id: order.map(|id| OrderId(uuid::Uuid::from_u128(id))),
            status,
            occurred_at: OffsetDateTime::from_unix_timestamp(at).unwrap() + time::Duration::nanoseconds(nanos),
            as_of: as_of.map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap()),
            livemode,
        }
    }
}

proptest! {
    #[test]
    fn what_we_write_is_valid_and_read_back(event in event()) {
        let body = encode(&event).unwrap();
        prop_assert_eq!(SCHEMA.check(&serde_json::from_slice(&body).unwrap()), Ok(()));
        prop_assert!(statuses_of_the_schema().contains_key(event.status.name()));
        prop_assert_eq!(decode(&body, NOW).unwrap(), event);
    }
}
