//! Translates an item into facts about its payment. The table of codes decides which items come here and how each is read.

use super::table::Read;
use crate::domain::dialect::{Object, Odd, Part};
use crate::domain::{
    CaptureState, Currency, DisputeState, FactId, IgnoredWhy, Money, PaymentId, PaymentStatus, RefundState,
};

/// Most parts that one Adyen order may list. A buyer combines a few gift cards with one more payment.
const PARTS_MAX: usize = 100;

/// The facts of an item.
pub(super) enum Meaning {
    /// Facts about one or several payments.
    Facts(Vec<Fact>),
    /// Nothing that changes a payment.
    Nothing(IgnoredWhy),
}

/// One fact about one payment.
pub(super) struct Fact {
    /// The part of the message id that differs from the item's other facts.
    pub(super) suffix: String,
    pub(super) payment_id: PaymentId,
    /// A further id that leads to the payment.
    pub(super) related_id: Option<PaymentId>,
    pub(super) status: PaymentStatus,
}

/// Reads one item of a notification.
pub(super) struct Reader<'r, 'v> {
    pub(super) item: &'r Object<'v>,
    /// Whether the item reports success.
    pub(super) success: bool,
    /// Whether a payment is paid only after a manual capture.
    pub(super) is_captured_by_hand: bool,
}

impl Reader<'_, '_> {
    pub(super) fn meaning(&self, read: Read) -> Result<Meaning, Odd> {
        let failed = || Ok(Meaning::Nothing(IgnoredWhy::RequestFailed));
        match (read, self.success) {
            // A card was checked, and no money was taken.
            (Read::Authorisation, true) if self.amount_is_zero() => Ok(Meaning::Nothing(IgnoredWhy::NoMoney)),
            (Read::Authorisation, true) if self.is_captured_by_hand => self.one(PaymentStatus::Pending),
            (Read::Authorisation, true) => {
                self.one(self.captured(self.announced_capture_id()?, CaptureState::Succeeded)?)
            }
            (Read::Authorisation, false) => self.one(PaymentStatus::failed(
                self.text("reason").filter(|reason| !reason.is_empty()).unwrap_or("refused"),
            )),
            // The manual capture tells the final amount.
            (Read::Adjustment, true) if self.is_captured_by_hand => {
                Ok(Meaning::Nothing(IgnoredWhy::SaidByAnotherEvent))
            }
            (Read::Adjustment, true) => Err(self.item.odd(
                "eventCode",
                "the authorised amount was changed, and Adyen does not say to what; look the payment up at Adyen, then \
                 amend the order or refund the payment",
            )),
            (Read::Capture, true) => self.capture(),
            // A refused request does not mean that the existing capture failed.
            (Read::Capture, false) => failed(),
            (Read::CaptureFailed, _) => self.capture_failed(),
            (Read::Pending, true) => self.one(PaymentStatus::Pending),
            (Read::Cancellation, true) => {
                self.needs_original()?;
                self.facts(vec![("", self.canceled()?)])
            }
            (Read::Expiry, true) => self.one(self.canceled()?),
            (Read::OfferClosed, true) => self.one(PaymentStatus::Canceled),
            (Read::CancelOrRefund, true) => self.cancel_or_refund(),
            (Read::Refund, true) => self.one(self.refund_made()?),
            // It has its own id, so it takes nothing from another refund.
            (Read::Refund, false) | (Read::RefundUndone, _) => self.one(self.refunded(RefundState::Failed)?),
            (Read::PostponedRefund, true) => self.one(self.refunded(RefundState::Pending)?),
            (Read::VoidedRefund, true) => Err(self.item.odd(
                "eventCode",
                "a refund was called off, and Adyen does not say which; compare the payment's refunds at Adyen with the \
                 order's credits",
            )),
            (Read::OrderClosed, true) => Ok(Meaning::Nothing(IgnoredWhy::SaidByAnotherEvent)),
            (Read::OrderClosed, false) => self.parts_given_back(),
            // Money counts when it is captured. A rejected payment is not captured.
            (Read::ReviewRejected, _) if self.is_captured_by_hand => Ok(Meaning::Nothing(IgnoredWhy::NoMoney)),
            (Read::ReviewRejected, _) => Err(self.item.odd(
                "eventCode",
                "a payment that counts as paid was rejected in a manual review; see at Adyen whether it was canceled or \
                 refunded, and whether a message said so",
            )),
            (Read::Dispute { round, state }, _) => self.dispute(round, state),
            (
                Read::Adjustment
                | Read::Pending
                | Read::Cancellation
                | Read::Expiry
                | Read::OfferClosed
                | Read::CancelOrRefund
                | Read::PostponedRefund
                | Read::VoidedRefund,
                false,
            ) => failed(),
        }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.item.value(field).and_then(Part::as_str)
    }

    fn one(&self, status: PaymentStatus) -> Result<Meaning, Odd> {
        self.facts(vec![("", status)])
    }

    /// The facts about one payment, each with the end of its message id.
    fn facts(&self, statuses: Vec<(&str, PaymentStatus)>) -> Result<Meaning, Odd> {
        let payment_id = payment_id(self.item)?;
        let fact = |(suffix, status): (&str, _)| Fact {
            suffix: suffix.to_owned(),
            payment_id: payment_id.clone(),
            related_id: None,
            status,
        };
        Ok(Meaning::Facts(statuses.into_iter().map(fact).collect()))
    }

    /// An item that undoes a payment must name it: its own reference is a different one.
    fn needs_original(&self) -> Result<(), Odd> {
        match self.text("originalReference") {
            None | Some("") => Err(self.item.odd("originalReference", "is missing, so that it names no payment")),
            Some(_) => Ok(()),
        }
    }

    fn own_id(&self) -> Result<FactId, Odd> {
        self.item.parsed("pspReference")
    }

    /// The automatic capture. The authorisation announces it, and it has no message of its own, so it uses the payment's reference.
    fn announced_capture_id(&self) -> Result<FactId, Odd> {
        FactId::new(payment_id(self.item)?.as_str()).map_err(|fault| self.item.odd("pspReference", fault))
    }

    fn captured(&self, capture_id: FactId, state: CaptureState) -> Result<PaymentStatus, Odd> {
        let money = self.money()?;
        Ok(PaymentStatus::Captured { money, capture_id: Some(capture_id), state, breakdown: None })
    }

    /// A requested capture. It replaces the capture that the authorisation announced, and several such captures may be parts of the
    /// payment.
    fn capture(&self) -> Result<Meaning, Odd> {
        let made = self.captured(self.own_id()?, CaptureState::Succeeded)?;
        if self.is_captured_by_hand {
            return self.one(made);
        }
        self.needs_original()?;
        let announced = PaymentStatus::CaptureCanceled { capture_id: self.announced_capture_id()? };
        self.facts(vec![("#capture", made), ("#announced", announced)])
    }

    /// It has the reference of the capture, which may be an automatic one.
    fn capture_failed(&self) -> Result<Meaning, Odd> {
        let made = self.captured(self.own_id()?, CaptureState::Failed)?;
        if self.is_captured_by_hand {
            return self.one(made);
        }
        self.needs_original()?;
        let announced = self.captured(self.announced_capture_id()?, CaptureState::Failed)?;
        self.facts(vec![("", announced), ("#capture", made)])
    }

    /// An authorisation that ended before its capture. Manual captures stay.
    fn canceled(&self) -> Result<PaymentStatus, Odd> {
        if self.is_captured_by_hand {
            return Ok(PaymentStatus::Canceled);
        }
        Ok(PaymentStatus::CaptureCanceled { capture_id: self.announced_capture_id()? })
    }

    /// Adyen chooses between the two, and its choice is not signed. So the choice is a part of the message id, and a message that
    /// was changed on its way does not block the genuine one. Without a choice it counts as a refund, which takes the same credits.
    fn cancel_or_refund(&self) -> Result<Meaning, Odd> {
        let action = self.item.value("additionalData").and_then(|data| data.get("modification.action")?.as_str());
        match action {
            Some("cancel") => {
                self.needs_original()?;
                self.facts(vec![("#cancel", self.canceled()?)])
            }
            Some("refund") | None => self.one(self.refund_made()?),
            Some(_) => Err(self.item.odd(
                "additionalData.modification.action",
                "is neither cancel nor refund; see at Adyen what was done to the payment",
            )),
        }
    }

    fn refund_made(&self) -> Result<PaymentStatus, Odd> {
        if self.amount_is_zero() {
            return Err(self.item.odd("amount.value", "is 0, so that it is not known how much went back"));
        }
        self.refunded(RefundState::Succeeded)
    }

    fn refunded(&self, state: RefundState) -> Result<PaymentStatus, Odd> {
        Ok(PaymentStatus::Refund { refund_id: self.own_id()?, state, money: self.money()? })
    }

    /// All steps of a dispute have its reference, and some have no other one. So a step that names the payment also registers the
    /// reference of the dispute for it.
    fn dispute(&self, round: u32, state: DisputeState) -> Result<Meaning, Odd> {
        let payment_id = payment_id(self.item)?;
        let own: PaymentId = self.item.parsed("pspReference")?;
        let status = PaymentStatus::Dispute { dispute_id: self.own_id()?, state, round, money: self.money()? };
        let related_id = Some(own).filter(|own| *own != payment_id);
        Ok(Meaning::Facts(vec![Fact { suffix: String::new(), payment_id, related_id, status }]))
    }

    /// An Adyen order of several payments was not paid in full, so its payments were canceled or refunded. If they are listed, each
    /// is reported under its own reference, and payments of another attempt are left alone.
    fn parts_given_back(&self) -> Result<Meaning, Odd> {
        let data = self.item.value("additionalData");
        let part = |n: usize| data.and_then(|data| data.get(&format!("order-{n}-pspReference"))?.as_str());
        if part(PARTS_MAX + 1).is_some() {
            return Err(self.item.odd("additionalData", format_args!("has more than {PARTS_MAX} parts of an order")));
        }
        let parts: Vec<_> = (1..=PARTS_MAX).filter_map(|n| Some((n, part(n)?))).collect();
        if parts.is_empty() {
            return self.one(PaymentStatus::PartsCanceled);
        }
        let fact = |(n, reference): (usize, &str)| {
            let odd = |fault| self.item.odd(&format!("additionalData.order-{n}-pspReference"), fault);
            let status = if self.is_captured_by_hand {
                PaymentStatus::Canceled
            } else {
                PaymentStatus::CaptureCanceled { capture_id: FactId::new(reference).map_err(odd)? }
            };
            let payment_id = PaymentId::new(reference).map_err(odd)?;
            Ok(Fact { suffix: format!("#{n}"), payment_id, related_id: None, status })
        };
        Ok(Meaning::Facts(parts.into_iter().map(fact).collect::<Result<_, Odd>>()?))
    }

    fn amount_is_zero(&self) -> bool {
        self.item.value("amount").and_then(|amount| amount.get("value")?.as_i64()) == Some(0)
    }

    fn money(&self) -> Result<Money, Odd> {
        let amount = self.item.object("amount", "amount")?;
        let currency: Currency = amount.parsed("currency")?;
        Money::from_units(amount.integer("value")?, decimals(currency), currency)
            .map_err(|fault| amount.odd("value", fault))
    }
}

/// The reference of the payment. For later changes to a payment, it is the original reference.
pub(super) fn payment_id(item: &Object<'_>) -> Result<PaymentId, Odd> {
    let field = match item.value("originalReference").and_then(Part::as_str) {
        None | Some("") => "pspReference",
        Some(_) => "originalReference",
    };
    item.parsed(field)
}

/// The number of decimals at Adyen: as in ISO 4217, except for the currencies on its page
/// <https://docs.adyen.com/development-resources/currency-codes/>.
fn decimals(currency: Currency) -> u8 {
    match currency.as_str() {
        "CVE" | "IDR" => 0,
        "CLP" | "ISK" => 2,
        _ => currency.decimals(),
    }
}
