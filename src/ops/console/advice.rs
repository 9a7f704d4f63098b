//! What each reason for a dead letter means to an operator, and what to do about it.

use crate::domain::Reason;

/// What is known about a reason.
pub(super) struct Advice {
    /// A heading in a few words.
    pub(super) title: &'static str,
    /// What happened, for somebody who does not know the program.
    pub(super) means: &'static str,
    /// What to do, one step after the other.
    pub(super) steps: &'static [&'static str],
}

/// The advice about a reason, by the reason's public name; none for a reason that this version does not know.
pub(super) fn advice(name: &str) -> Option<Advice> {
    Reason::from_name(name).map(advice_on)
}

fn advice_on(reason: Reason) -> Advice {
    let of = |title, means, steps| Advice { title, means, steps };
    match reason {
        Reason::Malformed => of(
            "The message does not follow the contract",
            "The publisher does not follow the contract payment-status.v1: a property or a field is wrong, or the message id does \
             not begin with the provider's name. The same bytes will be refused again, unless a newer version understands them.",
            &[
                "Find the publisher: the routing key and the message id below name its provider.",
                "Correct the publisher, and let it publish the payment again under the same message id.",
                "Check in the order's story whether the buyer has the credits by then. Then archive this letter.",
            ],
        ),
        Reason::ProviderMismatch => of(
            "Published under another provider's name",
            "The routing key names one provider, and the body names another. Either a relay is set up wrongly, or somebody tries \
             to publish for a provider that is not theirs.",
            &[
                "Find out who published it. If nobody should have done so, remove that user's rights in RabbitMQ now.",
                "If it is a mistake, correct the relay and let it publish again under its own key.",
                "This letter cannot be replayed: archive it.",
            ],
        ),
        Reason::LivemodeMismatch => of(
            "A live payment came to a test deployment",
            "Real money was paid, and the provider reported it to a deployment with GRANTONCE_LIVEMODE=false.",
            &[
                "Look at the provider where the live webhook endpoint leads, and set it to the live deployment.",
                "Let the provider send the event again to that deployment. The live reconciler finds the payment by itself, too.",
                "Archive this letter. Do not change GRANTONCE_LIVEMODE here.",
            ],
        ),
        Reason::UnknownPayment => of(
            "No order has this payment",
            "The payment is paid, no order has it, and all retries are used up. Either the site did not make the order, or made \
             it with another payment. Or the payment is for something else, and the provider's account is shared.",
            &[
                "Look at the provider whether the payment is for something that is sold here.",
                "If it is, make the order with this payment id (POST /v1/orders with payment_id). The verdict above changes to \
                 “would grant”. Then replay.",
                "If it is not, archive the letter. If such payments come often, set GRANTONCE_UNKNOWN_PAYMENTS=ignore at the \
                 workers.",
            ],
        ),
        Reason::PaymentConflict => of(
            "It points to two orders",
            "Its payment ids, its order id or its provider belong to different orders. A payment belongs to one order for ever, \
             so the program never decides this by itself.",
            &[
                "Open both orders that the detail names, and find out which one the buyer meant to pay.",
                "If the buyer paid twice, give one payment back at the provider.",
                "If an order was made with a wrong payment, correct it at the site. Replay only if the verdict says that it helps.",
            ],
        ),
        Reason::AccountMismatch => of(
            "Paid to another account at the provider",
            "The payment was made to another account at the provider than the order names.",
            &[
                "Check whether the order has the right provider_account. The site names it when it makes the order.",
                "If the money is in the right account, make a new order for this payment with that account. Then replay.",
            ],
        ),
        Reason::AmountMismatch => of(
            "The amount is not the order's",
            "The provider took another amount than the order costs, for example because of tax, a promotion code, or another \
             currency's minor unit. Or somebody tried to pay less. Nothing was granted.",
            &[
                "Compare what the buyer owes with what was paid.",
                "If the buyer owes no more, amend the order's price to what was paid (only before its grant), then replay. You can \
                 amend a whole group at once.",
                "If the buyer owes more, give the money back at the provider and archive the letter.",
            ],
        ),
        Reason::CurrencyMismatch => of(
            "The currency is not the order's",
            "The provider took money in another currency than the order's. Nothing was granted.",
            &[
                "Compare what the buyer owes with what was paid.",
                "If the payment is right, set the order's price and currency (only before its grant), then replay.",
                "If it is wrong, give the money back at the provider and archive the letter.",
            ],
        ),
        Reason::IdReused => of(
            "Its message id was used for something else",
            "A message with this id and another content was applied before. An id is for one message only: by its id this message \
             would count as a copy, and be lost.",
            &[
                "Find the publisher and correct it: each message needs an id of its own.",
                "Let it publish this payment again under an id of its own. Then archive the letter.",
                "Until then the order may lack something: check at the provider.",
            ],
        ),
        Reason::TooManyFacts => of(
            "The order has too many parts",
            "An order keeps at most 1,000 captures, 1,000 refunds and 1,000 disputes, and this order has as many. No real payment \
             has so many.",
            &["Look at the provider what happens to the payment.", "Settle it by hand, and archive the letter."],
        ),
        Reason::Untranslatable => of(
            "A genuine webhook that is not understood",
            "The provider signed it, so something happened to a payment. This version cannot tell what.",
            &[
                "Read the detail, which names the field. Look whether a newer version of grantonce understands it.",
                "After an upgrade, replay: the webhook is translated again.",
                "If it is urgent, check at the provider. That does not need this webhook.",
            ],
        ),
        Reason::RejectedByDatabase => of(
            "Postgres refuses its data",
            "The message follows the contract, but Postgres did not write it. The detail has the SQLSTATE, and the constraint if \
             one was violated.",
            &[
                "Look for a constraint or a trigger that is not part of grantonce, and correct it.",
                "Then replay: the message is applied as if it came for the first time.",
            ],
        ),
        Reason::Unexplained => of(
            "Somebody else put it into the dead letters",
            "It has no reason of grantonce: another program published it to the dead letters, or an older program moved it there.",
            &[
                "Read the message below, and find out who put it there.",
                "If the verdict says that a replay would do something, replay. If the message is not for grantonce, archive it.",
            ],
        ),
        Reason::DeliveryLimit => of(
            "It came back to the queue too often",
            "RabbitMQ gave up after a hundred returns. The message itself can be in order: workers could not settle it, because \
             Postgres was down or because they crashed. It is tried once more automatically.",
            &[
                "Check whether the workers reach Postgres and keep running. Look in their logs for given_back and for panics.",
                "When they work again, replay.",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_advice_on_every_reason() {
        for reason in Reason::ALL {
            let advice = advice(reason.name()).unwrap();
            assert!(!advice.steps.is_empty() && !advice.title.ends_with('.') && advice.means.ends_with('.'));
        }
        assert!(advice("of another version").is_none());
    }
}
