//! Adyen's cases.

use super::{Case, run, with};
use grantonce::webhook::Endpoint;
use serde_json::{Value, json};

/// A reference of the shop, in the form of an order's id.
const FOREIGN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// The item of minute n.
fn item(n: u32, code: &str, psp: &str, patch: Value) -> Value {
    let item = json!({
        "additionalData": {}, "amount": {"currency": "EUR", "value": 2500}, "eventCode": code,
        "eventDate": format!("2026-01-05T12:{n:02}:00+01:00"), "merchantAccountCode": "Shop", "merchantReference": "invoice 7",
        "paymentMethod": "visa", "pspReference": psp, "reason": "", "success": "true"
    });
    json!({"live": "false", "notificationItems": [{"NotificationRequestItem": with(item, patch)}]})
}

/// A later change to the payment `PSP1`.
fn later(n: u32, code: &str, psp: &str, patch: Value) -> Value {
    item(n, code, psp, with(json!({"originalReference": "PSP1#"}), patch))
}

fn eur(value: i64) -> Value {
    json!({"currency": "EUR", "value": value})
}

fn authorised() -> Value {
    item(0, "AUTHORISATION", "PSP1#", json!({}))
}

/// A separate payment for the order.
fn part(n: u32, psp: &str, value: i64) -> Value {
    item(n, "AUTHORISATION", psp, json!({"amount": eur(value), "merchantReference": "$ORDER"}))
}

/// A payment of 25.00 EUR.
fn order() -> Case {
    Case::of(Endpoint::Adyen, 2500, "PSP1#").currency("EUR")
}

/// Known by the order's own id, as the reference of its payments.
fn parted() -> Case {
    order().by_metadata()
}

/// Both with different times, and with one time for all.
fn at_any_times(cases: impl IntoIterator<Item = Case>) -> Vec<Case> {
    let at_once = |mut case: Case| {
        for body in &mut case.bodies {
            body["notificationItems"][0]["NotificationRequestItem"]["eventDate"] = "2026-01-05T12:00:00+01:00".into();
        }
        let name = format!("{}, at one time", case.name);
        case.named(name)
    };
    cases.into_iter().flat_map(|case| [case.clone(), at_once(case)]).collect()
}

#[tokio::test]
async fn a01_a_report_whose_name_has_colons_is_taken() {
    let named = |code: &str, psp: &str| item(1, code, psp, json!({"amount": eur(0)}));
    run([
        order()
            .named("a report")
            .sends([authorised(), named("REPORT_AVAILABLE", "settlement_2026-11-01T00:00:00_1#.csv")]),
        order().named("other codes without money").sends([
            authorised(),
            named("RECURRING_CONTRACT", "a:b#"),
            named("NOTIFICATION_OF_FRAUD", ":#:"),
        ]),
        order()
            .named("what would be applied")
            .sends([
                authorised(),
                named("REFUND", "R:1#"),
                item(2, "CHARGEBACK", "D:1#", json!({"originalReference": "PSP1#"})),
            ])
            .leaves(["untranslatable"]),
        order()
            .named("a payment")
            .sends([item(0, "AUTHORISATION", "PSP1#", json!({"merchantAccountCode": "Shop:A"}))])
            .ends("awaiting_payment", 0)
            .leaves(["untranslatable"]),
    ])
    .await;
}

#[tokio::test]
async fn a02_a_foreign_id_as_the_merchants_reference_does_not_hide_the_registered_payment() {
    let foreign = || json!({"merchantReference": FOREIGN});
    let paid = || item(0, "AUTHORISATION", "PSP1#", foreign());
    let refund = |psp: &str, value: i64| {
        later(
            1,
            "REFUND",
            psp,
            with(foreign(), json!({"amount": eur(value), "merchantReference": "01890a5d-ac96-774b-bcce-b302099a8058"})),
        )
    };
    run(at_any_times([
        order().named("an authorisation").sends([paid()]),
        order()
            .named("a refund with a reference of its own")
            .sends([paid(), refund("R1#", 1000)])
            .ends("partially_refunded", 60),
        order()
            .named("two refunds, one undone")
            .sends([
                paid(),
                refund("R1#", 1000),
                refund("R2#", 500),
                later(2, "REFUND_FAILED", "R1#", with(foreign(), json!({"amount": eur(1000)}))),
            ])
            .ends("partially_refunded", 80),
        order().named("a dispute").sends([paid(), later(1, "CHARGEBACK", "D1#", foreign())]).ends("disputed", 0),
        order().named("a dispute whose end names no payment").sends([
            paid(),
            later(1, "CHARGEBACK", "D1#", foreign()),
            item(2, "CHARGEBACK_REVERSED", "D1#", foreign()),
        ]),
        order().named("our own id").sends([item(0, "AUTHORISATION", "PSP1#", json!({"merchantReference": "$ORDER"}))]),
    ]))
    .await;
}

#[tokio::test]
async fn a03_what_was_canceled_before_its_capture_is_no_money() {
    let action = |action: &str| json!({"additionalData": {"modification.action": action}});
    let refused = || json!({"success": "false", "reason": "Transaction not found"});
    run(at_any_times([
        order()
            .named("a cancellation")
            .sends([authorised(), later(1, "CANCELLATION", "X1#", json!({}))])
            .ends("canceled", 0),
        order()
            .named("a technical cancel")
            .sends([authorised(), later(1, "TECHNICAL_CANCEL", "X1#", json!({}))])
            .ends("canceled", 0),
        order()
            .named("a reversal that canceled")
            .sends([authorised(), later(1, "CANCEL_OR_REFUND", "X1#", action("cancel"))])
            .ends("canceled", 0),
        order()
            .named("a newer reversal")
            .sends([authorised(), later(1, "REVERSAL", "X1#", action("cancel"))])
            .ends("canceled", 0),
        order()
            .named("a reversal that refunded")
            .sends([authorised(), later(1, "CANCEL_OR_REFUND", "X1#", action("refund"))])
            .ends("refunded", 0),
        order()
            .named("a reversal that does not say")
            .sends([authorised(), later(1, "CANCEL_OR_REFUND", "X1#", json!({}))])
            .ends("refunded", 0),
        order().named("an expiry").sends([authorised(), item(1, "EXPIRE", "PSP1#", json!({}))]).ends("canceled", 0),
        order().named("refused requests").sends([
            authorised(),
            later(1, "CANCELLATION", "X1#", refused()),
            later(2, "TECHNICAL_CANCEL", "X2#", refused()),
            later(3, "CANCEL_OR_REFUND", "X3#", with(action("cancel"), refused())),
        ]),
        order().named("and another payment").sends([
            item(0, "AUTHORISATION", "PSP1#", json!({"merchantReference": "$ORDER"})),
            later(1, "CANCELLATION", "X1#", json!({"merchantReference": "$ORDER"})),
            part(2, "PSP2#", 2500),
        ]),
    ]))
    .await;
}

#[tokio::test]
async fn a04_a_cancellation_with_manual_capture() {
    let order = || order().captured_by_hand();
    let capture = |n: u32, psp: &str, value: i64| later(n, "CAPTURE", psp, json!({"amount": eur(value)}));
    run(at_any_times([
        order()
            .named("a cancellation")
            .sends([authorised(), later(1, "CANCELLATION", "X1#", json!({}))])
            .ends("canceled", 0),
        order()
            .named("a technical cancel")
            .sends([authorised(), later(1, "TECHNICAL_CANCEL", "X1#", json!({}))])
            .ends("canceled", 0),
        order()
            .named("a reversal")
            .sends([
                authorised(),
                later(1, "CANCEL_OR_REFUND", "X1#", json!({"additionalData": {"modification.action": "cancel"}})),
            ])
            .ends("canceled", 0),
        order().named("captured in two parts, and the rest expired").sends([
            authorised(),
            capture(1, "C1#", 1000),
            capture(2, "C2#", 1500),
            item(3, "EXPIRE", "PSP1#", json!({})),
        ]),
        order().named("a refused capture beside a good one").sends([
            authorised(),
            capture(1, "C1#", 2500),
            later(2, "CAPTURE", "C2#", json!({"success": "false"})),
        ]),
        order().named("a failed capture beside a good one").sends([
            authorised(),
            capture(1, "C1#", 2500),
            later(2, "CAPTURE_FAILED", "C1#", json!({})),
            capture(3, "C3#", 2500),
        ]),
    ]))
    .await;
}

#[tokio::test]
async fn a07_a_gift_card_that_was_rolled_back_does_not_count() {
    let opened = || item(0, "ORDER_OPENED", "ORD1#", json!({"merchantReference": "$ORDER"}));
    let closed = |n: u32, success: &str, data: Value| {
        item(
            n,
            "ORDER_CLOSED",
            "ORD1#",
            json!({"success": success, "additionalData": data, "merchantReference": "$ORDER"}),
        )
    };
    let listed =
        || json!({"order-1-pspReference": "GIFT#", "order-1-paymentAmount": "EUR 20.00", "order-1-success": "true"});
    let ours = |value: i64| json!({"amount": eur(value), "merchantReference": "$ORDER"});
    let of = |psp: &str, value: i64| with(ours(value), json!({"originalReference": psp}));
    let both = || json!({"order-1-pspReference": "GIFT#", "order-2-pspReference": "CARD#"});
    let gift = || part(1, "GIFT#", 2000);
    let mut cases = vec![
        parted().named("paid in two parts").sends([opened(), gift(), part(2, "CARD#", 500), closed(3, "true", both())]),
        parted()
            .named("one part canceled")
            .sends([gift(), part(2, "CARD#", 500), item(3, "CANCELLATION", "X#", of("CARD#", 500))])
            .ends("processing", 0),
        parted()
            .named("one part refunded")
            .sends([gift(), part(2, "CARD#", 500), item(3, "REFUND", "R#", of("CARD#", 500))])
            .ends("partially_refunded", 80),
        parted()
            .named("a part refunded in part")
            .sends([gift(), part(2, "CARD#", 500), item(3, "REFUND", "R#", of("GIFT#", 1000))])
            .ends("partially_refunded", 60),
        parted()
            .named("both parts given back")
            .sends([gift(), part(2, "CARD#", 500), closed(3, "false", both())])
            .ends("canceled", 0),
        parted()
            .named("the gift card was never charged")
            .sends([closed(2, "false", listed()), part(3, "CARD#", 500)])
            .ends("processing", 0),
        // The abandoned order ends after another one was paid.
        parted().named("closed after another attempt was paid").sends([
            gift(),
            part(2, "GIFT2#", 1000),
            part(3, "CARD#", 1500),
            closed(4, "false", listed()),
        ]),
    ];
    for (how, data) in [("listed", listed()), ("not listed", json!({}))] {
        cases.extend([
            parted()
                .named(format!("{how}, then a card for the rest"))
                .sends([gift(), closed(2, "false", data.clone()), part(3, "CARD#", 500)])
                .ends("processing", 0),
            parted().named(format!("{how}, then a card for all")).sends([
                gift(),
                closed(2, "false", data),
                part(3, "CARD#", 2500),
            ]),
        ]);
    }
    let mut cases = at_any_times(cases);
    // With equal times, nobody can tell which attempt an order without a list has ended.
    for case in cases.iter_mut().filter(|case| case.name == "not listed, then a card for the rest, at one time") {
        case.status = "canceled";
    }
    cases.extend([
        parted()
            .captured_by_hand()
            .named("by hand")
            .sends([
                gift(),
                closed(2, "false", listed()),
                part(3, "CARD#", 500),
                item(4, "CAPTURE", "C#", of("CARD#", 500)),
            ])
            .ends("processing", 0),
        parted().named("not listed, and another attempt").sends([
            gift(),
            closed(2, "false", json!({})),
            part(3, "GIFT2#", 1000),
            part(4, "CARD#", 1500),
        ]),
    ]);
    run(cases).await;
}

#[tokio::test]
async fn a12_every_step_of_a_dispute_counts_in_its_order() {
    // Steps of one dispute, a minute apart, and the expected result.
    let steps = |codes: &[&str]| -> Vec<Value> {
        let step = |(n, code): (u32, &&str)| later(n, code, "D1#", json!({}));
        std::iter::once(authorised()).chain((1..).zip(codes).map(step)).collect()
    };
    let disputed = |name: &str, codes: &[&str]| order().named(name.to_owned()).sends(steps(codes)).ends("disputed", 0);
    let won = |name: &str, codes: &[&str]| order().named(name.to_owned()).sends(steps(codes));
    let unnamed = || {
        let mut bodies = steps(&["CHARGEBACK"]);
        for (n, code) in (2..).zip(["CHARGEBACK_REVERSED", "PREARBITRATION_OPEN", "SECOND_CHARGEBACK"]) {
            bodies.push(item(n, code, "D1#", json!({"merchantReference": "$ORDER", "amount": eur(3100)})));
        }
        bodies
    };
    run(at_any_times([
        disputed(
            "lost in arbitration",
            &[
                "CHARGEBACK",
                "CHARGEBACK_REVERSED",
                "PREARBITRATION_OPEN",
                "PREARBITRATION_DECLINED",
                "SCHEME_ARBITRATION",
                "SCHEME_ARBITRATION_LOST",
            ],
        ),
        won(
            "won in arbitration",
            &[
                "CHARGEBACK",
                "CHARGEBACK_REVERSED",
                "PREARBITRATION_OPEN",
                "PREARBITRATION_DECLINED",
                "SCHEME_ARBITRATION",
                "SCHEME_ARBITRATION_WON",
            ],
        ),
        disputed("accepted", &["CHARGEBACK", "CHARGEBACK_REVERSED", "PREARBITRATION_OPEN", "PREARBITRATION_ACCEPTED"]),
        disputed(
            "accepted and taken",
            &[
                "CHARGEBACK",
                "CHARGEBACK_REVERSED",
                "PREARBITRATION_OPEN",
                "PREARBITRATION_ACCEPTED",
                "SECOND_CHARGEBACK",
            ],
        ),
        won(
            "withdrawn",
            &["CHARGEBACK", "CHARGEBACK_REVERSED", "PREARBITRATION_OPEN", "PREARBITRATION_ISSUER_WITHDRAWN"],
        ),
        won(
            "no answer",
            &[
                "NOTIFICATION_OF_CHARGEBACK",
                "CHARGEBACK",
                "INFORMATION_SUPPLIED",
                "CHARGEBACK_REVERSED",
                "ISSUER_RESPONSE_TIMEFRAME_EXPIRED",
            ],
        ),
        disputed("not defended", &["NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK", "DISPUTE_DEFENSE_PERIOD_ENDED"]),
        disputed("without notice", &["DISPUTE_OPENED_WITH_CHARGEBACK", "CHARGEBACK"]),
        won(
            "won before arbitration, one movement",
            &["CHARGEBACK", "INFORMATION_SUPPLIED", "PREARBITRATION_WON", "CHARGEBACK_REVERSED"],
        ),
        disputed("lost before arbitration", &["CHARGEBACK", "PREARBITRATION_LOST"]),
        disputed("a second chargeback", &["CHARGEBACK", "CHARGEBACK_REVERSED", "SECOND_CHARGEBACK"]),
        won(
            "only words",
            &["NOTIFICATION_OF_FRAUD", "REQUEST_FOR_INFORMATION", "INFORMATION_SUPPLIED", "ISSUER_COMMENTS"],
        ),
        order().named("steps that name no payment, and a fee").sends(unnamed()).ends("disputed", 0),
        // The fee is not money of the other payment.
        parted()
            .named("a fee beside another payment")
            .sends([
                part(0, "PSP1#", 2000),
                part(0, "PSP2#", 500),
                later(1, "CHARGEBACK", "D1#", json!({"amount": eur(2000)})),
                later(2, "CHARGEBACK_REVERSED", "D1#", json!({"amount": eur(2000)})),
                item(3, "SECOND_CHARGEBACK", "D1#", json!({"amount": eur(2600)})),
            ])
            .ends("disputed", 20),
    ]))
    .await;
}

#[tokio::test]
async fn a18_a_refused_request_is_no_failure_of_what_took_place() {
    let refused = || json!({"success": "false", "reason": "Insufficient balance on payment"});
    let again = || json!({"reason": "Transaction Recaptured"});
    let failed = |n: u32, psp: &str| later(n, "CAPTURE_FAILED", psp, json!({"reason": "Capture Failed"}));
    let mut cases = at_any_times([
        order().named("a refused extra capture").sends([authorised(), later(1, "CAPTURE", "C1#", refused())]),
        order().named("a refused refund").sends([authorised(), later(1, "REFUND", "R1#", refused())]),
        order()
            .named("a refused refund beside a good one")
            .sends([
                authorised(),
                later(1, "REFUND", "R1#", json!({"amount": eur(500)})),
                later(2, "REFUND", "R2#", refused()),
            ])
            .ends("partially_refunded", 80),
        order().named("the capture failed").sends([authorised(), failed(1, "C1#")]).ends("awaiting_payment", 0),
        order().named("captured early").sends([authorised(), later(1, "CAPTURE", "C1#", json!({}))]),
        order().named("captured early in two parts").sends([
            authorised(),
            later(1, "CAPTURE", "C1#", json!({"amount": eur(1000)})),
            later(2, "CAPTURE", "C2#", json!({"amount": eur(1500)})),
        ]),
        order()
            .named("captured early in part")
            .sends([authorised(), later(1, "CAPTURE", "C1#", json!({"amount": eur(1000)}))])
            .ends("processing", 0),
        order().named("failed, and captured again").sends([
            authorised(),
            failed(1, "C1#"),
            later(2, "CAPTURE", "C2#", again()),
        ]),
    ]);
    cases.push(
        order()
            .named("captured early and failed")
            .sends([authorised(), later(1, "CAPTURE", "C1#", json!({})), failed(2, "C1#")])
            .ends("awaiting_payment", 0),
    );
    cases.push(order().named("failed, and captured again under the same reference").sends([
        authorised(),
        failed(1, "C1#"),
        later(2, "CAPTURE", "C1#", again()),
    ]));
    run(cases).await;
}

#[tokio::test]
async fn a26_a_refund_by_any_code_takes_its_credits() {
    let some = || json!({"amount": eur(1000)});
    run(at_any_times([
        order()
            .named("with data")
            .sends([authorised(), later(1, "REFUND_WITH_DATA", "R1#", some())])
            .ends("partially_refunded", 60),
        order()
            .named("with data, refused")
            .sends([authorised(), later(1, "REFUND_WITH_DATA", "R1#", with(some(), json!({"success": "false"})))]),
        order().named("with data, and failed later").sends([
            authorised(),
            later(1, "REFUND_WITH_DATA", "R1#", some()),
            later(2, "REFUND_FAILED", "R1#", some()),
        ]),
        order()
            .named("postponed, then made")
            .sends([authorised(), later(1, "POSTPONED_REFUND", "R1#", some()), later(2, "REFUND", "R1#", some())])
            .ends("partially_refunded", 60),
        order()
            .named("the buyer has it")
            .sends([authorised(), later(1, "REFUND", "R1#", some()), later(2, "REFUND_NOT_CLEARED", "R1#", some())])
            .ends("partially_refunded", 60),
        order().named("not ours").sends([
            authorised(),
            later(1, "DONATION", "G1#", json!({"merchantAccountCode": "Charity"})),
            later(2, "PAIDOUT_REVERSED", "P1#", some()),
        ]),
        order()
            .named("what an operator has to see")
            .sends([
                authorised(),
                later(1, "SETTLED_REVERSED", "S1#", some()),
                later(2, "VOID_PENDING_REFUND", "V1#", some()),
                later(3, "NEW_CODE", "N1#", some()),
            ])
            .leaves(["untranslatable"]),
    ]))
    .await;
}
