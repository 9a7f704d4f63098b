//! What a dead letter says, as far as it can be read: typed, because decisions are made by it. Its words are for people.

use super::ids::{OrderId, PaymentId, Provider, ProviderAccount};
use super::status::{PaymentEvent, PaymentStatus};

/// What a dead letter content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterContent {
    /// The provider of the payment.
    pub provider: Option<Provider>,
    /// The account at the provider; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// The payment, by every id that it names, the main one first.
    pub payment_ids: Vec<PaymentId>,
    /// Orders that it names. They need not be orders of ours.
    pub order_ids: Vec<OrderId>,
    /// What it says of the payment.
    pub status: Option<PaymentStatus>,
    /// The same in words, for people alone.
    pub words: Option<String>,
}

impl From<&PaymentEvent> for LetterContent {
    fn from(event: &PaymentEvent) -> Self {
        Self {
            provider: Some(event.provider.clone()),
            provider_account: event.provider_account.clone(),
            payment_ids: event.payment_ids().cloned().collect(),
            order_ids: event.order_id.into_iter().collect(),
            words: Some(event.status.in_words()),
            status: Some(event.status.clone()),
        }
    }
}

impl LetterContent {
    /// Adds what another message of the same letter content. Of two statuses the one that reports money that came in is kept,
    /// else the first. Ids of a payment at another account would be looked for at the wrong one: they are left out.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let is_empty = self == Self::default();
        if is_empty {
            return other;
        }
        if !self.reports_money() && (self.status.is_none() || other.reports_money()) && other.status.is_some() {
            self.status = other.status;
            self.words = other.words;
        }
        if (&self.provider, &self.provider_account) == (&other.provider, &other.provider_account) {
            let new = other.payment_ids.into_iter().filter(|id| !self.payment_ids.contains(id)).collect::<Vec<_>>();
            self.payment_ids.extend(new);
        }
        let new = other.order_ids.into_iter().filter(|id| !self.order_ids.contains(id)).collect::<Vec<_>>();
        self.order_ids.extend(new);
        self
    }

    /// Whether it says that money came in.
    pub fn reports_money(&self) -> bool {
        self.status.as_ref().is_some_and(PaymentStatus::reports_money)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CaptureState, DisputeState, FactId, Money, RefundState};

    fn usd(minor: i64) -> Money {
        Money::new(minor, "USD".parse().unwrap()).unwrap()
    }

    #[test]
    fn states_have_the_names_of_the_contract() {
        let name = |state: &dyn Fn() -> serde_json::Value| state().as_str().map(str::to_owned);
        let id = || FactId::new("f").unwrap();
        for state in [CaptureState::Succeeded, CaptureState::Failed] {
            let status = PaymentStatus::Captured { money: usd(1), capture_id: None, state, breakdown: None };
            assert_eq!(status.state_name().map(str::to_owned), name(&|| serde_json::json!(state)));
            assert_eq!((status.reports_money(), status.money()), (state == CaptureState::Succeeded, Some(usd(1))));
        }
        for state in [RefundState::Pending, RefundState::Succeeded, RefundState::Failed] {
            let status = PaymentStatus::Refund { refund_id: id(), state, money: usd(1) };
            assert_eq!(status.state_name().map(str::to_owned), name(&|| serde_json::json!(state)));
            assert!(!status.reports_money());
        }
        for state in [DisputeState::Inquiry, DisputeState::Open, DisputeState::Won, DisputeState::Lost] {
            let status = PaymentStatus::Dispute { dispute_id: id(), state, round: 1, money: usd(1) };
            assert_eq!(status.state_name().map(str::to_owned), name(&|| serde_json::json!(state)));
            assert!(!status.reports_money());
        }
        assert_eq!((PaymentStatus::Canceled.state_name(), PaymentStatus::Canceled.money()), (None, None));
    }

    #[test]
    fn x02_a_capture_that_failed_has_other_words_than_one_that_succeeded() {
        let words =
            |state| PaymentStatus::Captured { money: usd(1999), capture_id: None, state, breakdown: None }.in_words();
        assert_eq!(words(CaptureState::Succeeded), "captured 19.99 USD");
        assert_eq!(words(CaptureState::Failed), "capture of 19.99 USD failed");
    }

    #[test]
    fn ids_of_another_account_are_not_taken_for_those_of_the_first() {
        let of = |account: Option<&str>, payment: &str| LetterContent {
            provider: Some(Provider::STRIPE),
            provider_account: account.map(|account| ProviderAccount::new(account).unwrap()),
            payment_ids: vec![PaymentId::new(payment).unwrap()],
            ..LetterContent::default()
        };
        let ids = |content: LetterContent| content.payment_ids.iter().map(PaymentId::to_string).collect::<Vec<_>>();
        assert_eq!(ids(of(None, "pi_1").and(of(None, "pi_2")).and(of(None, "pi_1"))), ["pi_1", "pi_2"]);
        assert_eq!(ids(of(None, "pi_1").and(of(Some("acct_1"), "pi_2"))), ["pi_1"]);
    }
}
