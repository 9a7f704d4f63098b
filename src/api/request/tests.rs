use super::*;
use axum::body::to_bytes;
use axum::response::IntoResponse as _;

fn good() -> Value {
    json!({
        "account_id": "user-42", "credits": 500, "amount_minor": 1999, "currency": "USD",
        "provider": "stripe", "payment_id": "pi_1", "metadata": {"cart": "8271"}
    })
}

/// The good request with some fields replaced.
fn with(fields: Value) -> Value {
    let mut request = good();
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

fn check(request: &Value) -> Result<OrderRequest, Problem> {
    OrderRequest::check(serde_json::from_value(request.clone()).unwrap())
}

/// The status and the faults in the answer.
fn told(problem: Problem) -> (u16, Vec<(String, String)>) {
    let response = problem.into_response();
    let status = response.status().as_u16();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = runtime.block_on(to_bytes(response.into_body(), usize::MAX)).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fields = body["fields"].as_array().cloned().unwrap_or_default();
    (status, fields.iter().map(|fault| (text(&fault["field"]), text(&fault["detail"]))).collect())
}

#[test]
fn a_good_request_is_taken() {
    let taken = check(&good()).unwrap();
    assert_eq!(taken.price.to_string(), "1999 USD (minor units)");
    assert_eq!(taken.metadata, json!({"cart": "8271"}));
    let least = with(json!({"credits": 1, "amount_minor": 1, "metadata": null}));
    assert_eq!(check(&least).unwrap().metadata, json!({}));
    let most = with(json!({"credits": CREDITS_MAX, "amount_minor": AMOUNT_MINOR_MAX, "payment_id": "p".repeat(255)}));
    assert!(check(&most).is_ok());
}

#[test]
fn every_fault_of_every_field_is_found() {
    let long = "x".repeat(256);
    for (field, value, says) in [
        ("account_id", json!(null), "is required"),
        ("account_id", json!(7), "must be a string"),
        ("account_id", json!(""), "must not be empty"),
        ("account_id", json!("a\u{0}b"), "not allowed at byte 1"),
        ("account_id", json!(" a"), "free of blanks"),
        ("account_id", json!(long), "at most 255"),
        ("credits", json!(null), "is required"),
        ("credits", json!("5"), "whole number, 1 to 1000000000000000"),
        ("credits", json!(0), "whole number"),
        ("credits", json!(-1), "whole number"),
        ("credits", json!(1.5), "whole number"),
        ("credits", json!(1.0), "whole number"),
        ("credits", json!(CREDITS_MAX + 1), "whole number"),
        ("credits", json!(u64::MAX), "whole number"),
        ("amount_minor", json!(null), "is required"),
        ("amount_minor", json!(0), "whole number, 1 to 1000000000000000"),
        ("amount_minor", json!(19.99), "whole number"),
        ("amount_minor", json!(AMOUNT_MINOR_MAX + 1), "whole number"),
        ("currency", json!(null), "is required"),
        ("currency", json!("usd"), "ISO 4217"),
        ("currency", json!("XXX"), "ISO 4217"),
        ("currency", json!(840), "must be a string"),
        ("provider", json!(null), "is required"),
        ("provider", json!("Stripe"), "a-z, 0-9"),
        ("provider", json!("a.b"), "a-z, 0-9"),
        ("retry", json!("often"), "must be backoff or never"),
        ("payment_id", json!(""), "must not be empty"),
        ("payment_id", json!(["pi_1"]), "must be a string"),
        ("payment_id", json!(long), "at most 255"),
        ("metadata", json!([]), "must be a JSON object"),
        ("metadata", json!("x"), "must be a JSON object"),
        ("metadata", json!({"a": {"b": ["c\u{0}"]}}), "U+0000"),
        ("metadata", json!({"a": [{"\u{0}": 1}]}), "U+0000"),
        ("metadata", json!({"a": 1e300}), "1e+300 with too many digits"),
        ("metadata", json!({"a": 1e-300}), "too many digits"),
        ("metadata", json!({"a": "x".repeat(METADATA_BYTES_MAX)}), "at most 16384"),
        ("price_terms", json!("net"), "must be total, before_tax or before_tax_and_discount"),
        ("price_terms", json!(""), "must be total"),
        ("price_terms", json!(7), "must be a string"),
        ("discount_max_minor", json!(5), "goes with price_terms before_tax_and_discount alone"),
        ("discount_max_minor", json!("5"), "must be a whole number"),
        ("discount_max_minor", json!(0.5), "must be a whole number"),
        ("discount_max_minor", json!(5.0), "must be a whole number"),
        ("status", json!("fulfilled"), "is not a field"),
        ("Credits", json!(5), "is not a field"),
    ] {
        let problem = check(&with(json!({field: value}))).expect_err(field);
        let (status, faults) = told(problem);
        assert_eq!(status, 422, "{field} {value}");
        let [(named, detail)] = faults.as_slice() else { panic!("{field} {value}: {faults:?}") };
        assert_eq!(named, field);
        assert!(detail.contains(says), "{field} {value}: {detail}");
    }
}

#[test]
fn terms_have_a_limit_where_they_speak_of_discounts() {
    let asked = |name: &str, max: Value| check(&with(json!({"price_terms": name, "discount_max_minor": max})));
    let terms = |name: &str, max: Value| asked(name, max).map(|asked| asked.price_terms);
    assert_eq!(check(&good()).map(|asked| asked.price_terms), Ok(PriceTerms::Total));
    assert_eq!(terms("total", json!(null)), Ok(PriceTerms::Total));
    assert_eq!(terms("before_tax", json!(null)), Ok(PriceTerms::BeforeTax));
    for max in [0, 1, 1999] {
        let wanted = PriceTerms::BeforeTaxAndDiscount { discount_max_minor: max };
        assert_eq!(terms("before_tax_and_discount", json!(max)), Ok(wanted));
    }
    for (name, max, says) in [
        ("before_tax_and_discount", json!(null), "needs discount_max_minor"),
        ("before_tax_and_discount", json!(2000), "must lie between 0 and the price of 1999"),
        ("before_tax_and_discount", json!(-1), "must lie between 0 and the price of 1999"),
        ("before_tax_and_discount", json!(i64::MAX), "must lie between"),
        ("before_tax_and_discount", json!(u64::MAX), "must be a whole number"),
        ("before_tax", json!(0), "goes with price_terms before_tax_and_discount alone"),
        ("total", json!(0), "goes with price_terms before_tax_and_discount alone"),
    ] {
        let (status, faults) = told(asked(name, max.clone()).unwrap_err());
        let [(field, detail)] = faults.as_slice() else { panic!("{name} {max}: {faults:?}") };
        assert_eq!((status, field.as_str()), (422, "discount_max_minor"), "{name} {max}");
        assert!(detail.contains(says), "{name} {max}: {detail}");
    }
    // If the price is wrong, the limit is not compared with it.
    let (_, faults) = told(
        check(&with(json!({
        "amount_minor": 0, "price_terms": "before_tax_and_discount", "discount_max_minor": 5})))
        .unwrap_err(),
    );
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn all_faults_are_listed_at_once() {
    let (_, faults) = told(check(&json!({"unknown": 1, "credits": 0, "metadata": []})).unwrap_err());
    let named: Vec<_> = faults.iter().map(|(field, _)| field.as_str()).collect();
    let all = ["account_id", "credits", "amount_minor", "currency", "provider", "metadata", "unknown"];
    assert_eq!(named, all);
}

#[test]
fn what_is_repeated_to_the_sender_is_bounded() {
    let many: serde_json::Map<_, _> = (0..1_000).map(|n| (format!("{n}{}", "x".repeat(1_000)), json!(1))).collect();
    let (_, faults) = told(check(&Value::Object(many)).unwrap_err());
    assert_eq!(faults.len(), FAULTS_MAX);
    assert!(faults.iter().all(|(field, _)| field.len() <= NAME_BYTES_MAX));
}

#[test]
fn metadata_of_exactly_the_bound_is_taken() {
    let overhead = r#"{"a":""}"#.len();
    let most = json!({"a": "x".repeat(METADATA_BYTES_MAX - overhead)});
    assert!(check(&with(json!({"metadata": most}))).is_ok());
    let over = json!({"a": "x".repeat(METADATA_BYTES_MAX - overhead + 1)});
    assert!(check(&with(json!({"metadata": over}))).is_err());
}

#[test]
fn a_field_may_not_be_given_twice() {
    let twice = r#"{"credits": 1, "account_id": "a", "credits": 1000}"#;
    let error = serde_json::from_str::<Fields>(twice).unwrap_err().to_string();
    assert!(error.starts_with("the field credits is given twice"), "{error}");
    let error = serde_json::from_str::<Fields>("[1]").unwrap_err().to_string();
    assert!(error.contains("expected a JSON object"), "{error}");
}

#[test]
fn the_digest_is_of_the_meaning() {
    let digest = |request: &Value| check(request).unwrap().digest();
    let reordered: Fields = serde_json::from_str(
        r#" { "metadata": {"z": {"b": 1, "a": 2}, "y": 0}, "payment_id": "pi_1", "provider": "stripe",
              "currency": "\u0055SD", "amount_minor": 1999, "credits": 500, "account_id": "user-42" } "#,
    )
    .unwrap();
    let same = with(json!({"metadata": {"y": 0, "z": {"a": 2, "b": 1}}}));
    assert_eq!(OrderRequest::check(reordered).unwrap().digest(), digest(&same));
    assert_eq!(digest(&with(json!({"metadata": {}}))), digest(&with(json!({"metadata": null}))));

    let mut digests = vec![digest(&good())];
    for other in [
        json!({"account_id": "user-43"}),
        json!({"credits": 501}),
        json!({"amount_minor": 2000}),
        json!({"currency": "EUR"}),
        json!({"provider": "paypal"}),
        json!({"payment_id": "pi_2"}),
        json!({"metadata": {"cart": "8272"}}),
        json!({"metadata": {"cart": ["8271"]}}),
        json!({"metadata": {}}),
        json!({"price_terms": "before_tax"}),
        json!({"price_terms": "before_tax_and_discount", "discount_max_minor": 0}),
        json!({"price_terms": "before_tax_and_discount", "discount_max_minor": 1}),
        json!({"price_terms": "before_tax", "return_url": "https://x"}),
        json!({"return_url": "https://x"}),
    ] {
        digests.push(digest(&with(other)));
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn the_digest_s_form_stays() {
    // Keys are kept for ever. If this changed, a repeated call would count as another request.
    let digest = hex::encode(check(&good()).unwrap().digest());
    assert_eq!(digest, "613901dc9f67285d8fd9ed8d94b2208a08b7b7749663bf2e0ce65d4c4f61361b");
    let total = hex::encode(check(&with(json!({"price_terms": "total"}))).unwrap().digest());
    assert_eq!(total, digest, "the default terms have the same digest");
}

#[test]
fn a_key_is_one_header_of_printable_characters() {
    let key = |values: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY_HEADER, axum::http::HeaderValue::from_bytes(value).unwrap());
        }
        idempotency_key(&headers)
    };
    assert_eq!(key(&[b"cart-8271"]), Ok("cart-8271".to_owned()));
    assert_eq!(key(&[b"\"quoted, with blanks\""]), Ok("\"quoted, with blanks\"".to_owned()));
    assert!(key(&[&[b'x'; IDEMPOTENCY_KEY_CHARS_MAX]]).is_ok());
    let long = [b'x'; IDEMPOTENCY_KEY_CHARS_MAX + 1];
    let all_bad: [&[&[u8]]; 6] = [&[], &[b"a", b"a"], &[b""], &[&long], &["schlüssel".as_bytes()], &[b"a\tb"]];
    for bad in all_bad {
        assert_eq!(key(bad).unwrap_err().status(), 400, "{bad:?}");
    }
}
