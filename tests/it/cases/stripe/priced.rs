//! Orders whose price is without tax, or without a discount.

use super::{NEW, OLD, charge, event, intent, order, ours, refund, run, session, session_order, stripe_list, with};
use crate::cases::Case;
use grantonce::domain::PriceTerms;
use serde_json::{Value, json};

/// A completed session over a price of 1999.
fn sold(total: i64, tax: i64, discount: i64) -> Value {
    let intent = (total > 0).then_some("pi_1#");
    let details = json!({"amount_tax": tax, "amount_discount": discount, "amount_shipping": 0});
    let priced = json!({"amount_subtotal": 1999, "amount_total": total, "total_details": details});
    with(session("cs_1#", intent, total), priced)
}

fn terms(discount_max_minor: i64) -> PriceTerms {
    PriceTerms::BeforeTaxAndDiscount { discount_max_minor }
}

/// Both events of a payment by a session, and Stripe's answers about it.
fn paid_by(case: Case, sold: &Value) -> Case {
    let total = sold["amount_total"].as_i64().unwrap();
    case.sends([
        event(1, NEW, "payment_intent.succeeded", intent("pi_1#", total)),
        event(2, NEW, "checkout.session.completed", sold.clone()),
    ])
    .answers("/v1/checkout/sessions/cs_1#", sold.clone())
    .answers("/v1/payment_intents/pi_1#", intent("pi_1#", total))
    .answers("/v1/checkout/sessions?payment_intent=pi_1#", stripe_list([sold.clone()]))
}

#[tokio::test]
async fn tax_and_discounts_are_judged_by_the_orders_price_terms() {
    let refused = |case: Case| case.ends("awaiting_payment", 0).leaves(["amount_mismatch"]);
    let free = |case: Case| {
        let nothing = with(sold(0, 0, 1999), json!({"payment_status": "no_payment_required"}));
        case.sends([event(1, NEW, "checkout.session.completed", nothing.clone())])
            .answers("/v1/checkout/sessions/cs_1#", nothing)
    };
    run([
        paid_by(session_order(1999).terms(PriceTerms::BeforeTax).named("tax on top"), &sold(2399, 400, 0)),
        paid_by(order(1999).terms(PriceTerms::BeforeTax).named("tax on top, by the intent"), &sold(2399, 400, 0)),
        paid_by(session_order(1999).terms(PriceTerms::BeforeTax).named("tax in the price"), &sold(1999, 333, 0)),
        paid_by(session_order(1999).terms(terms(500)).named("a discount"), &sold(1499, 0, 500)),
        paid_by(order(1999).terms(terms(500)).named("a discount, and tax on top"), &sold(1799, 300, 500)),
        free(session_order(1999).terms(terms(1999)).named("nothing to pay")),
        refused(free(session_order(1999).terms(terms(1998)).named("nothing to pay, above the limit"))),
        refused(free(session_order(1999).named("nothing to pay, and the total counts"))),
        refused(session_order(1999).terms(terms(499)).named("a discount above the limit")).sends([event(
            1,
            NEW,
            "checkout.session.completed",
            sold(1499, 0, 500),
        )]),
        session_order(1999)
            .terms(PriceTerms::BeforeTax)
            .named("parts that do not add up")
            .sends([event(1, NEW, "checkout.session.completed", sold(2399, 300, 0))])
            .ends("awaiting_payment", 0)
            .leaves(["untranslatable"]),
        paid_by(session_order(1999).terms(PriceTerms::BeforeTax), &sold(2399, 400, 0))
            .named("a refund takes credits in proportion to what was paid")
            .sends([
                event(3, NEW, "refund.created", refund("re_1#", 1200)),
                event(4, OLD, "charge.refunded", charge(2399, 1200)),
            ])
            .answers("/v1/refunds?payment_intent=pi_1#", stripe_list([refund("re_1#", 1200)]))
            .ends("partially_refunded", 49),
        session_order(1999).by_metadata().terms(PriceTerms::BeforeTax).named("by the order's own id").sends([
            event(1, NEW, "payment_intent.succeeded", ours(intent("pi_1#", 2399))),
            event(2, NEW, "checkout.session.completed", ours(sold(2399, 400, 0))),
        ]),
    ])
    .await;
}
