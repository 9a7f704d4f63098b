//! Amounts in the formats of the providers, in tables.

use super::*;
use crate::domain::{Currency, Money, MoneyError};
use serde_json::json;

fn money(amount_minor: i64, code: &str) -> Money {
    Money::new(amount_minor, Currency::new(code).unwrap()).unwrap()
}

#[test]
fn paypal_writes_decimals_of_its_own() {
    for (amount_minor, code, text) in [
        (1099, "USD", "10.99"),
        (5, "EUR", "0.05"),
        (0, "EUR", "0.00"),
        (1000, "JPY", "1000"),
        (50_000, "HUF", "500"),
        (90_000, "TWD", "900"),
        (1_234, "TND", "1.234"),
    ] {
        assert_eq!(paypal::amount_text(money(amount_minor, code)).unwrap(), text);
        let body = json!({"amount": {"currency_code": code, "value": text}});
        assert_eq!(paypal::amount(&Object::root(&body).unwrap()).unwrap(), money(amount_minor, code), "{text} {code}");
    }
    assert!(matches!(paypal::amount_text(money(50_050, "HUF")), Err(MoneyError::Finer { .. })));
}

#[test]
fn a_paypal_amount_is_exact_or_odd() {
    let read = |value: serde_json::Value, code: &str| {
        let body = json!({"amount": {"currency_code": code, "value": value}});
        paypal::amount(&Object::root(&body).unwrap()).map(|money| money.amount_minor())
    };
    assert_eq!(read(json!("10.9"), "USD"), Ok(1090));
    assert_eq!(read(json!("10.990"), "USD"), Ok(1099));
    assert_eq!(read(json!("10"), "USD"), Ok(1000));
    for bad in ["10.991", "-1.00", "+1.00", "1e3", "1,00", "1.", ".5", "", " 1", "1.2.3", "9999999999999999999", "١"] {
        assert!(read(json!(bad), "USD").is_err(), "{bad}");
    }
    assert!(read(json!(10.99), "USD").is_err(), "a number is no text");
    assert!(read(json!("10.5"), "JPY").is_err());
    assert!(read(json!("1.00"), "XXX").is_err());
    // The text of the error contains no value of the body.
    let body = json!({"amount": {"currency_code": "USD", "value": "secret"}});
    let odd = paypal::amount(&Object::root(&body).unwrap()).unwrap_err().to_string();
    assert_eq!(odd, "amount.value: must be a decimal number, as in 10.99");
}

#[test]
fn stripe_counts_units_of_its_own() {
    for (amount_minor, code, units) in
        [(1999, "USD", 1999), (5, "ISK", 500), (500, "MGA", 5), (1000, "JPY", 1000), (1_500, "KWD", 1_500)]
    {
        assert_eq!(stripe::units(money(amount_minor, code)), Some(Ok(units)), "{code}");
        let body = json!({"amount": units, "currency": code.to_ascii_lowercase()});
        assert_eq!(stripe::money(&Object::root(&body).unwrap(), "amount"), Ok(money(amount_minor, code)), "{code}");
    }
    assert!(matches!(stripe::units(money(550, "MGA")), Some(Err(MoneyError::Finer { .. }))));
    assert_eq!(stripe::units(money(1, "IQD")), None, "three decimals at ISO, and Stripe's page says nothing");
}

#[test]
fn a_list_is_of_objects() {
    let body = json!({"good": [{"a": 1}], "bad": [1], "odd": {}, "none": null});
    let root = Object::root(&body).unwrap();
    assert_eq!(root.list("good", "good[]").unwrap()[0].integer("a"), Ok(1));
    assert!(root.list("none", "none[]").unwrap().is_empty() && root.list("absent", "absent[]").unwrap().is_empty());
    assert!(root.list("bad", "bad[]").is_err() && root.list("odd", "odd[]").is_err());
}
