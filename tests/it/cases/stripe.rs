//! Stripe's cases.

mod priced;

use super::{Case, run, stripe_list, with};
use grantonce::webhook::Endpoint;
use serde_json::{Value, json};

/// Times are counted from here; 2026-01-05T12:00:00Z.
const T0: i64 = 1_767_614_400;

const DAY: i64 = 86_400;

/// API versions before `2025-03-31.basil`.
const OLDEST: &str = "2020-08-27";
const OLD: &str = "2024-06-20";
const ACACIA: &str = "2025-02-24.acacia";
/// API versions since then.
const BASIL: &str = "2025-03-31.basil";
const NEW: &str = "2026-07-29.dahlia";

/// The event of that number, that many seconds after the first.
fn event_at(n: i64, after: i64, version: &str, kind: &str, object: Value) -> Value {
    json!({
        "id": format!("evt_{n}#"), "object": "event", "api_version": version, "created": T0 + after, "type": kind,
        "livemode": false, "data": {"object": object}
    })
}

/// The event of that number, one second after the event before it.
fn event(n: i64, version: &str, kind: &str, object: Value) -> Value {
    event_at(n, n, version, kind, object)
}

fn intent(id: &str, amount: i64) -> Value {
    json!({
        "id": id, "object": "payment_intent", "amount": amount, "amount_received": amount, "currency": "usd",
        "created": T0, "status": "succeeded", "livemode": false, "latest_charge": null, "metadata": {}
    })
}

/// A charge of `pi_1`, captured whole.
fn charge(amount: i64, refunded: i64) -> Value {
    json!({
        "id": "ch_1#", "object": "charge", "payment_intent": "pi_1#", "amount": amount, "amount_captured": amount,
        "amount_refunded": refunded, "captured": true, "paid": true, "status": "succeeded", "refunded": refunded == amount,
        "currency": "usd", "created": T0, "livemode": false, "metadata": {}
    })
}

/// A charge of 1999 of which 1000 were captured.
fn held(refunded: i64) -> Value {
    with(charge(1999, refunded), json!({"amount_captured": 1000, "refunded": false}))
}

fn refund(id: &str, amount: i64) -> Value {
    json!({
        "id": id, "object": "refund", "amount": amount, "charge": "ch_1#", "payment_intent": "pi_1#", "currency": "usd",
        "created": T0 + 5, "status": "succeeded", "balance_transaction": "txn_1", "metadata": {}
    })
}

/// A dispute of `pi_1` over 1999, and the money that it moved.
fn dispute(status: &str, moved: &[i64]) -> Value {
    let moved: Vec<_> = moved
        .iter()
        .map(|amount| json!({"id": "txn_1", "amount": amount, "currency": "usd", "fee": 1500, "created": T0 + 9}))
        .collect();
    json!({
        "id": "du_1#", "object": "dispute", "amount": 1999, "charge": "ch_1#", "payment_intent": "pi_1#", "currency": "usd",
        "created": T0 + 8, "status": status, "balance_transactions": moved, "livemode": false
    })
}

fn session(id: &str, intent: Option<&str>, total: i64) -> Value {
    json!({
        "id": id, "object": "checkout.session", "mode": "payment", "status": "complete", "payment_status": "paid",
        "payment_intent": intent, "amount_subtotal": total, "amount_total": total, "currency": "usd", "created": T0,
        "livemode": false, "metadata": {}
    })
}

fn order(price_minor: i64) -> Case {
    Case::of(Endpoint::Stripe, price_minor, "pi_1#")
}

/// An order that was created with the id of a checkout session.
fn session_order(price_minor: i64) -> Case {
    Case::of(Endpoint::Stripe, price_minor, "cs_1#")
}

/// An order that was created with the id of a charge.
fn charge_order(price_minor: i64) -> Case {
    Case::of(Endpoint::Stripe, price_minor, "ch_1#")
}

fn ours(object: Value) -> Value {
    with(object, json!({"metadata": {"order_id": "$ORDER"}}))
}

fn paid(n: i64, version: &str, amount: i64) -> Value {
    event(n, version, "payment_intent.succeeded", intent("pi_1#", amount))
}

/// Stripe's answers about `pi_1`.
fn answered(case: Case, charge: Value, refunds: Vec<Value>, disputes: Vec<Value>) -> Case {
    let received = charge["amount_captured"].as_i64().unwrap();
    let intent = with(intent("pi_1#", received), json!({"latest_charge": charge}));
    case.answers("/v1/payment_intents/pi_1#", intent)
        .answers("/v1/refunds?payment_intent=pi_1#", stripe_list(refunds))
        .answers("/v1/disputes?payment_intent=pi_1#", stripe_list(disputes))
}

#[tokio::test]
async fn s01_a_released_hold_is_not_a_refund() {
    let hold = |version: &str| {
        let authorised = with(intent("pi_1#", 1999), json!({"amount_received": 1000, "capture_method": "manual"}));
        event(1, version, "payment_intent.succeeded", authorised)
    };
    let refunded = |n, version: &str, total| event(n, version, "charge.refunded", held(total));
    let released = || with(refund("re_hold#", 999), json!({"balance_transaction": null}));
    let made = |n, version: &str, refund| event(n, version, "refund.created", refund);
    let yen = |object| with(object, json!({"currency": "jpy"}));
    let mut cases = vec![
        answered(order(1000).named("acacia tells the hold as a refund as well"), held(999), vec![released()], vec![])
            .sends([hold(ACACIA), refunded(2, ACACIA, 999), made(3, ACACIA, released())]),
        answered(order(1000).named("400 on top"), held(1399), vec![released(), refund("re_1#", 400)], vec![])
            .sends([hold(OLD), refunded(2, OLD, 999), refunded(3, OLD, 1399)])
            .ends("partially_refunded", 60),
        order(1000)
            .named("400 on top, told by its own event as well")
            .sends([
                hold(ACACIA),
                made(2, ACACIA, released()),
                made(3, ACACIA, refund("re_1#", 400)),
                refunded(4, ACACIA, 1399),
            ])
            .ends("partially_refunded", 60),
        order(1000)
            .named("all of it on top")
            .sends([hold(OLD), refunded(2, OLD, 999), refunded(3, OLD, 1999)])
            .ends("refunded", 0),
        answered(order(1000).named("since basil"), held(400), vec![refund("re_1#", 400)], vec![])
            .sends([hold(BASIL), refunded(2, BASIL, 400), made(3, BASIL, refund("re_1#", 400))])
            .ends("partially_refunded", 60),
        order(1000)
            .named("since basil, as much as the hold was")
            .sends([hold(NEW), refunded(2, NEW, 999)])
            .ends("partially_refunded", 0),
        order(1000).currency("JPY").credits(500).named("yen").ends("partially_refunded", 350).sends([
            event(1, OLD, "payment_intent.succeeded", yen(intent("pi_1#", 1000))),
            event(2, OLD, "charge.refunded", yen(held(999))),
            event(3, OLD, "charge.refunded", yen(held(1299))),
        ]),
        order(1000)
            .named("a hold that was released whole")
            .sends([
                event(1, OLD, "payment_intent.amount_capturable_updated", intent("pi_1#", 1999)),
                event(2, OLD, "payment_intent.canceled", intent("pi_1#", 1999)),
                event(
                    3,
                    OLD,
                    "charge.refunded",
                    with(charge(1999, 1999), json!({"amount_captured": 0, "captured": false})),
                ),
            ])
            .ends("canceled", 0),
        order(1000)
            .named("a dispute on top")
            .sends([
                hold(OLD),
                refunded(2, OLD, 999),
                event(
                    3,
                    OLD,
                    "charge.dispute.created",
                    with(dispute("needs_response", &[-1000]), json!({"amount": 1000})),
                ),
            ])
            .ends("disputed", 0),
        charge_order(1000).named("a charge without an intent").sends([
            event(1, OLD, "charge.captured", with(held(999), json!({"payment_intent": null}))),
            event(2, OLD, "charge.refunded", with(held(999), json!({"payment_intent": null}))),
        ]),
    ];
    for version in [OLDEST, "2022-11-15", OLD] {
        let case = order(1000).named(version).sends([hold(version), refunded(2, version, 999)]);
        cases.push(answered(case, held(999), vec![], vec![]));
    }
    run(cases).await;
}

#[tokio::test]
async fn s02_totals_belong_to_a_payment() {
    let first = |amount| ours(intent("pi_1#", amount));
    let second = |amount| ours(intent("pi_2#", amount));
    let released = |version| {
        event(3, version, "charge.refunded", with(charge(1999, 1999), json!({"amount_captured": 0, "captured": false})))
    };
    let voided = |version: &str| {
        [
            event(1, version, "payment_intent.amount_capturable_updated", first(1999)),
            event(2, version, "payment_intent.canceled", first(1999)),
        ]
    };
    let answers = |case: Case| {
        case.answers("/v1/checkout/sessions/cs_1#", ours(session("cs_1#", Some("pi_2#"), 1999)))
            .answers("/v1/payment_intents/pi_2#", second(1999))
    };
    let sold = |version: &str| event(4, version, "payment_intent.succeeded", second(1999));
    run([
        answers(session_order(1999).named("a hold was released and another paid"))
            .sends(voided(OLD))
            .sends([released(OLD), sold(OLD)]),
        session_order(1999).named("whatever the version").sends(voided(NEW)).sends([released(NEW), sold(NEW)]),
        order(1999)
            .by_metadata()
            .named("by the order's own id")
            .sends(voided(ACACIA))
            .sends([released(ACACIA), sold(ACACIA)]),
        // The first payment was paid and refunded. Then the second one was paid.
        session_order(1999).named("refunded, then paid again").sends([
            event(1, NEW, "payment_intent.succeeded", first(1999)),
            event(2, NEW, "charge.refunded", charge(1999, 1999)),
            event(3, NEW, "refund.created", refund("re_1#", 1999)),
            sold(NEW),
        ]),
        session_order(1999).named("the first failed").sends([
            event(1, NEW, "payment_intent.payment_failed", first(0)),
            event(2, NEW, "payment_intent.canceled", first(0)),
            sold(NEW),
        ]),
        session_order(1999).named("the first was disputed and lost").sends([
            event(1, NEW, "payment_intent.succeeded", first(1999)),
            event(2, NEW, "charge.dispute.closed", dispute("lost", &[-1999])),
            sold(NEW),
        ]),
    ])
    .await;
}

#[tokio::test]
async fn s03_an_order_that_is_paid_twice_keeps_one_grant() {
    let first = || event(1, NEW, "payment_intent.succeeded", ours(intent("pi_1#", 1999)));
    let second = || event(2, NEW, "payment_intent.succeeded", ours(intent("pi_2#", 1999)));
    let of_second = |object| with(object, json!({"payment_intent": "pi_2#", "charge": "ch_2#"}));
    let charge_two = |refunded| with(charge(1999, refunded), json!({"id": "ch_2#", "payment_intent": "pi_2#"}));
    let answers = |case: Case| {
        case.answers("/v1/checkout/sessions/cs_1#", ours(session("cs_1#", Some("pi_1#"), 1999)))
            .answers("/v1/payment_intents/pi_1#", ours(intent("pi_1#", 1999)))
    };
    run([
        answers(session_order(1999).named("both are kept")).sends([first(), second()]),
        answers(session_order(1999).named("the second goes back")).sends([
            first(),
            second(),
            event(3, NEW, "refund.created", of_second(refund("re_1#", 1999))),
            event(4, NEW, "charge.refunded", charge_two(1999)),
        ]),
        answers(session_order(1999).named("the second is disputed")).sends([
            first(),
            second(),
            event(3, NEW, "charge.dispute.created", of_second(dispute("needs_response", &[-1999]))),
            event(4, NEW, "charge.dispute.closed", of_second(dispute("lost", &[-1999]))),
        ]),
        session_order(1999).named("both go back").ends("refunded", 0).sends([
            first(),
            second(),
            event(3, NEW, "charge.refunded", charge(1999, 1999)),
            event(4, NEW, "charge.refunded", charge_two(1999)),
        ]),
        order(1999).by_metadata().named("a part of the second goes back, before basil").sends([
            first(),
            second(),
            event(3, OLD, "charge.refunded", charge_two(500)),
        ]),
    ])
    .await;
}

#[tokio::test]
async fn s04_what_the_provider_said_last_of_a_dispute_counts() {
    let closed = |n, after, status: &str, moved: &[i64]| {
        event_at(n, after, NEW, "charge.dispute.closed", dispute(status, moved))
    };
    let reinstated = |n, status: &str, moved: &[i64]| {
        event_at(n, 10 + DAY, NEW, "charge.dispute.funds_reinstated", dispute(status, moved))
    };
    let euros = |object| with(object, json!({"currency": "eur", "amount": 1800}));
    run([
        answered(order(1999).named("lost, then won"), charge(1999, 0), vec![], vec![dispute("won", &[])]).sends([
            paid(1, NEW, 1999),
            closed(2, 10, "lost", &[]),
            reinstated(3, "won", &[]),
            closed(4, 10 + DAY, "won", &[]),
        ]),
        answered(
            order(1999).named("its money is back"),
            charge(1999, 0),
            vec![],
            vec![dispute("lost", &[-1999, 1999])],
        )
        .sends([paid(1, OLD, 1999), closed(2, 10, "lost", &[-1999]), reinstated(3, "lost", &[-1999, 1999])]),
        answered(order(1999).named("won, then lost"), charge(1999, 0), vec![], vec![dispute("lost", &[-1999])])
            .sends([
                paid(1, NEW, 1999),
                event_at(2, 5, NEW, "charge.dispute.created", dispute("needs_response", &[-1999])),
                closed(3, 10, "won", &[-1999, 1999]),
                closed(4, 10 + DAY, "lost", &[-1999, 1999, -1999]),
            ])
            .ends("disputed", 0),
        answered(
            order(1999).named("the event of the win was missed"),
            charge(1999, 0),
            vec![],
            vec![dispute("won", &[])],
        )
        .sends([paid(1, NEW, 1999), closed(2, 10, "lost", &[])])
        .ends("disputed", 0)
        .ends_once_asked("fulfilled", 100),
        order(1999).named("in another currency").sends([
            paid(1, NEW, 1999),
            event_at(2, 10, NEW, "charge.dispute.closed", euros(dispute("lost", &[]))),
            event_at(3, 10 + DAY, NEW, "charge.dispute.closed", euros(dispute("won", &[]))),
        ]),
        order(1999).named("of two disputes one is lost").ends("disputed", 0).sends([
            paid(1, NEW, 1999),
            closed(2, 10, "lost", &[]),
            closed(3, 10 + DAY, "won", &[]),
            event_at(4, 20, NEW, "charge.dispute.closed", with(dispute("lost", &[]), json!({"id": "du_2#"}))),
        ]),
    ])
    .await;
}

#[tokio::test]
async fn s05_a_prevented_dispute_takes_what_it_moved() {
    let ends = |status: &str, moved: &[i64]| {
        let case = order(1999).named(format!("{status} {moved:?}"));
        answered(case, charge(1999, 0), vec![], vec![dispute(status, moved)]).sends([
            paid(1, NEW, 1999),
            event(2, NEW, "charge.dispute.created", dispute("needs_response", &[])),
            event(3, NEW, "charge.dispute.closed", dispute(status, moved)),
        ])
    };
    run([
        ends("prevented", &[-1999]).ends("disputed", 0),
        ends("prevented", &[]),
        ends("prevented", &[-1999, 1999]),
        ends("prevented", &[-500]).ends("disputed", 74),
        ends("lost", &[-1999, 1999]),
        ends("lost", &[-1999]).ends("disputed", 0),
        ends("won", &[-1999, 1999]),
        order(1999).named("by its charge alone").ends("disputed", 0).sends([
            event(1, OLD, "payment_intent.succeeded", with(intent("pi_1#", 1999), json!({"latest_charge": "ch_1#"}))),
            event(
                2,
                OLD,
                "charge.dispute.closed",
                with(dispute("prevented", &[-1999]), json!({"payment_intent": null})),
            ),
        ]),
    ])
    .await;
}

#[tokio::test]
async fn s09_a_foreign_order_id_does_not_hide_the_registered_payment() {
    let naming = |object, id: &str| with(object, json!({"metadata": {"order_id": id}}));
    let foreign = |object| naming(object, "01890a5d-ac96-774b-bcce-b302099a8057");
    let paid = || foreign(intent("pi_1#", 1999));
    run([
        order(1999)
            .named("a succeeded intent")
            .sends([event(1, OLD, "payment_intent.succeeded", paid())])
            .answers("/v1/payment_intents/pi_1#", paid()),
        order(1999).named("with what came before it").sends([
            event(1, NEW, "payment_intent.processing", paid()),
            event(2, ACACIA, "payment_intent.payment_failed", paid()),
            event(3, NEW, "payment_intent.succeeded", paid()),
        ]),
        session_order(1999)
            .named("a session")
            .sends([event(1, NEW, "checkout.session.completed", foreign(session("cs_1#", Some("pi_1#"), 1999)))])
            .answers("/v1/checkout/sessions/cs_1#", foreign(session("cs_1#", Some("pi_1#"), 1999)))
            .answers("/v1/payment_intents/pi_1#", paid()),
        charge_order(1999)
            .named("a charge")
            .sends([event(1, OLD, "charge.succeeded", foreign(with(charge(1999, 0), json!({"payment_intent": null}))))])
            .answers("/v1/charges/ch_1#", foreign(with(charge(1999, 0), json!({"payment_intent": null})))),
        order(1999).named("our own id").sends([event(1, OLD, "payment_intent.succeeded", ours(intent("pi_1#", 1999)))]),
        order(1999)
            .named("another order of ours")
            .sends([event(1, OLD, "payment_intent.succeeded", naming(intent("pi_1#", 1999), "$OTHER"))])
            .ends("awaiting_payment", 0)
            .leaves(["payment_conflict"]),
    ])
    .await;
}

#[tokio::test]
async fn s12_a_refund_of_no_payment_is_ignored() {
    let nowhere = |object| with(object, json!({"payment_intent": null, "charge": null}));
    run([
        order(1999).named("of a cash balance").sends([
            paid(1, NEW, 1999),
            event(2, NEW, "refund.created", nowhere(refund("re_1#", 1999))),
            event(3, NEW, "refund.updated", nowhere(refund("re_1#", 1999))),
        ]),
        order(1999).named("that failed").sends([
            paid(1, ACACIA, 1999),
            event(2, ACACIA, "refund.failed", nowhere(with(refund("re_1#", 1999), json!({"status": "failed"})))),
        ]),
        order(1999)
            .named("in an old version")
            .sends([paid(1, OLD, 1999), event(2, OLD, "charge.refund.updated", nowhere(refund("re_1#", 500)))]),
    ])
    .await;
}

#[tokio::test]
async fn s13_money_for_an_order_in_a_form_that_cannot_be_applied_is_a_dead_letter() {
    let sold = |mode: &str| with(ours(session("cs_1#", None, 1999)), json!({"mode": mode, "subscription": "sub_1#"}));
    let nothing = |case: Case| case.ends("awaiting_payment", 0);
    let letter = |case| nothing(case).leaves(["untranslatable"]);
    let named = json!({"metadata": {"order_id": "$ORDER"}});
    let invoice = |patch| {
        with(
            json!({"id": "in_1#", "object": "invoice", "amount_paid": 1999, "currency": "usd", "status": "paid"}),
            patch,
        )
    };
    run([
        letter(order(1999).named("a subscription").sends([event(
            1,
            NEW,
            "checkout.session.completed",
            sold("subscription"),
        )])),
        letter(order(1999).named("by its own id").by_metadata().sends([
            event(1, OLD, "checkout.session.completed", sold("subscription")),
            event(2, OLD, "invoice.paid", invoice(json!({"subscription_details": named}))),
        ])),
        letter(order(1999).named("a way to pay").sends([event(
            1,
            NEW,
            "checkout.session.completed",
            with(sold("setup"), json!({"payment_status": "no_payment_required"})),
        )])),
        letter(order(1999).named("an invoice").sends([event(1, NEW, "invoice.paid", invoice(named.clone()))])),
        letter(order(1999).named("a subscription's invoice").sends([event(
            1,
            NEW,
            "invoice.payment_succeeded",
            invoice(json!({"parent": {"subscription_details": named}})),
        )])),
        nothing(order(1999).named("somebody else's").sends([
            event(1, NEW, "checkout.session.completed", with(sold("subscription"), json!({"metadata": {}}))),
            event(2, NEW, "invoice.paid", invoice(json!({}))),
        ])),
        nothing(order(1999).named("one that was never paid").sends([
            event(
                1,
                NEW,
                "checkout.session.completed",
                with(sold("subscription"), json!({"payment_status": "unpaid"})),
            ),
            event(2, NEW, "checkout.session.expired", sold("subscription")),
        ])),
    ])
    .await;
}

#[tokio::test]
async fn s15_a_context_is_an_account() {
    let within = |context: Value| with(paid(1, NEW, 1999), json!({"context": context}));
    let ours_within = |context: &str| {
        with(event(1, NEW, "payment_intent.succeeded", ours(intent("pi_1#", 1999))), json!({"context": context}))
    };
    let elsewhere = |case: Case, letter| case.ends("awaiting_payment", 0).leaves([letter]);
    run([
        elsewhere(order(1999).named("of another account").sends([ours_within("acct_9")]), "account_mismatch"),
        elsewhere(order(1999).named("within an organisation").sends([ours_within("org_1/acct_9")]), "account_mismatch"),
        elsewhere(
            order(1999).named("a payment of another account").sends([within(json!("acct_9"))]),
            "unknown_payment",
        ),
        order(1999).account("acct_9").named("the order's").sends([within(json!("acct_9"))]),
        order(1999).account("acct_9").named("the order's, by its path").sends([within(json!("org_1/acct_9"))]),
        order(1999)
            .account("acct_9")
            .named("by both")
            .sends([with(within(json!("acct_9")), json!({"account": "acct_9"}))]),
        order(1999).named("our own").sends([within(Value::Null)]),
        order(1999)
            .account("acct_9")
            .named("two that differ")
            .sends([with(within(json!("acct_8")), json!({"account": "acct_9"}))])
            .ends("awaiting_payment", 0)
            .leaves(["untranslatable"]),
    ])
    .await;
}

#[tokio::test]
async fn s16_an_order_may_be_made_with_a_charge() {
    let alone = |object| with(object, json!({"payment_intent": null}));
    let made = |refunded| alone(charge(1999, refunded));
    let old_intent = || {
        let listed = json!({"object": "list", "data": [charge(1999, 0)]});
        with(intent("pi_1#", 1999), json!({"latest_charge": null, "charges": listed}))
    };
    let answers = |case: Case, refunded, refunds: Vec<Value>, disputes: Vec<Value>| {
        case.answers("/v1/charges/ch_1#", made(refunded))
            .answers("/v1/refunds?charge=ch_1#", stripe_list(refunds))
            .answers("/v1/disputes?charge=ch_1#", stripe_list(disputes))
    };
    run([
        answers(charge_order(1999).named("a charge of its own"), 0, vec![], vec![]).sends([event(
            1,
            OLD,
            "charge.succeeded",
            made(0),
        )]),
        answers(charge_order(1999).named("refunded"), 500, vec![alone(refund("re_1#", 500))], vec![])
            .sends([
                event(1, NEW, "charge.succeeded", made(0)),
                event(2, NEW, "charge.refunded", made(500)),
                event(3, NEW, "refund.created", alone(refund("re_1#", 500))),
            ])
            .ends("partially_refunded", 74),
        answers(charge_order(1999).named("disputed"), 0, vec![], vec![alone(dispute("lost", &[-1999]))])
            .sends([
                event(1, NEW, "charge.captured", made(0)),
                event(2, NEW, "charge.dispute.created", alone(dispute("needs_response", &[-1999]))),
                event(3, NEW, "charge.dispute.closed", alone(dispute("lost", &[-1999]))),
            ])
            .ends("disputed", 0),
        charge_order(1999).named("an intent before 2022-11-15").sends([
            event(1, OLDEST, "payment_intent.succeeded", old_intent()),
            event(2, OLDEST, "charge.succeeded", charge(1999, 0)),
        ]),
        charge_order(1999)
            .named("an intent since then")
            .sends([event(
                1,
                NEW,
                "payment_intent.succeeded",
                with(intent("pi_1#", 1999), json!({"latest_charge": "ch_1#"})),
            )])
            .answers("/v1/charges/ch_1#", charge(1999, 0))
            .answers(
                "/v1/payment_intents/pi_1#",
                with(intent("pi_1#", 1999), json!({"latest_charge": charge(1999, 0)})),
            ),
        order(1999).by_metadata().named("by its metadata").sends([
            event(1, OLD, "charge.pending", ours(with(made(0), json!({"captured": false, "paid": false})))),
            event(2, OLD, "charge.succeeded", ours(made(0))),
        ]),
        charge_order(1999)
            .named("failed, expired")
            .sends([
                event(
                    1,
                    OLD,
                    "charge.failed",
                    with(made(0), json!({"captured": false, "paid": false, "status": "failed"})),
                ),
                event(2, OLD, "charge.expired", with(made(0), json!({"captured": false, "amount_captured": 0}))),
            ])
            .ends("canceled", 0),
    ])
    .await;
}

#[tokio::test]
async fn s19_a_character_that_was_cut_in_two_is_no_reason_to_refuse() {
    let cut = |value: &Value| Value::String(serde_json::to_string(value).unwrap().replace('…', "\\ud83d"));
    let spoilt = |patch| with(intent("pi_1#", 1999), patch);
    let sent = |object| cut(&event(1, OLD, "payment_intent.succeeded", object));
    run([
        order(1999)
            .named("in a description")
            .sends([sent(spoilt(json!({"description": "100 credits …"})))])
            .answers("/v1/payment_intents/pi_1#", cut(&spoilt(json!({"description": "100 credits …"})))),
        order(1999).named("in a name").sends([sent(spoilt(json!({"not… read": 1})))]),
        order(1999)
            .by_metadata()
            .named("beside the order's id")
            .sends([sent(spoilt(json!({"metadata": {"order_id": "$ORDER", "note": "a … b"}})))]),
        order(1999)
            .named("in an id")
            .sends([sent(spoilt(json!({"id": "pi_…"})))])
            .ends("awaiting_payment", 0)
            .leaves(["untranslatable"]),
    ])
    .await;
}
