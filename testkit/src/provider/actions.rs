//! The actions of buyers, sellers and banks on a payment. Each changes the state of the payment, and the provider sends webhooks
//! about it.

use super::{EVENTS_MAX, Entry, PaymentView, Provider, ProviderError};
use crate::lock;
use crate::provider::payment::{Dispute, DisputeState, Outcome, Refund, RefundState, Said, Seller, Status, Step};
use crate::provider::plan::{mix, reports, spread};
use fastrand::Rng;
use time::OffsetDateTime;

/// The most events that one action reports.
const REPORTS_MAX: usize = 8;

impl Provider {
    /// The buyer acts. A failed payment may be tried again, an abandoned one may not. At PayPal the buyer only agrees, and a
    /// refusal changes nothing.
    pub fn pay(&self, id: &str, outcome: Outcome) -> Result<PaymentView, ProviderError> {
        let copies = self.0.settings.copies;
        self.act(id, |entry, rng, now| {
            let is_paypal = entry.known.payment.seller == Seller::Paypal;
            let state = &mut entry.known.state;
            match state.status {
                Status::Succeeded => return Err(ProviderError::PaidAlready(id.to_owned())),
                Status::Canceled => return Err(ProviderError::Over(id.to_owned())),
                Status::Open | Status::Failed | Status::Approved => {}
            }
            let status = match outcome {
                Outcome::Succeeded if is_paypal => Status::Approved,
                Outcome::Succeeded => Status::Succeeded,
                Outcome::Failed => Status::Failed,
                Outcome::Canceled if is_paypal => state.status,
                Outcome::Canceled => Status::Canceled,
            };
            if status != state.status {
                (state.status, state.since) = (status, now);
            }
            if is_paypal && outcome != Outcome::Failed {
                return Ok(Vec::new());
            }
            Ok(reports(rng, entry.known.payment.seller, outcome, copies))
        })
    }

    /// PayPal: the seller takes the money after the buyer has agreed.
    pub(super) fn capture(&self, id: &str) -> Result<PaymentView, ProviderError> {
        let copies = self.0.settings.copies;
        self.act(id, |entry, rng, now| {
            let state = &mut entry.known.state;
            match state.status {
                Status::Approved => (state.status, state.since) = (Status::Succeeded, now),
                Status::Succeeded => return Err(ProviderError::PaidAlready(id.to_owned())),
                Status::Open | Status::Failed | Status::Canceled => {
                    return Err(ProviderError::NotApproved(id.to_owned()));
                }
            }
            Ok(spread(rng, vec![Said::Succeeded], copies))
        })
    }

    /// The seller refunds a part, or the whole rest.
    pub fn refund(&self, id: &str, amount_minor: Option<i64>) -> Result<PaymentView, ProviderError> {
        let copies = self.0.settings.copies;
        self.act(id, |entry, rng, now| {
            let known = &mut entry.known;
            let left = known.payment.kept_minor(&known.state);
            if left == 0 {
                return Err(ProviderError::NothingLeft(id.to_owned()));
            }
            let amount = amount_minor.unwrap_or(left);
            let money = known.payment.part(amount).ok().filter(|_| (1..=left).contains(&amount));
            let money = money.ok_or_else(|| ProviderError::BadAmount(id.to_owned()))?;
            let number = known.state.refunds.len() + 1;
            let refund = Refund { number, money, state: RefundState::Succeeded, at: now };
            known.state.refunds.push(refund);
            let total = known.state.refunded_minor();
            Ok(spread(rng, vec![Said::RefundMade(refund), Said::RefundedTotal(total)], copies))
        })
    }

    /// The last refund fails days after it succeeded, for instance because the buyer's account is closed.
    pub fn fail_refund(&self, id: &str) -> Result<PaymentView, ProviderError> {
        let copies = self.0.settings.copies;
        self.act(id, |entry, rng, _now| {
            let refunds = entry.known.state.refunds.iter_mut();
            let last = refunds.rev().find(|refund| refund.state != RefundState::Failed);
            let refund = last.ok_or_else(|| ProviderError::NoRefund(id.to_owned()))?;
            refund.state = RefundState::Failed;
            Ok(spread(rng, vec![Said::RefundChanged(*refund)], copies))
        })
    }

    /// The buyer's bank takes back the rest.
    pub fn dispute(&self, id: &str) -> Result<PaymentView, ProviderError> {
        let copies = self.0.settings.copies;
        self.act(id, |entry, rng, now| {
            let known = &mut entry.known;
            let left = known.payment.part(known.payment.kept_minor(&known.state)).ok();
            let money = left.filter(|money| money.amount_minor() > 0);
            let money = money.ok_or_else(|| ProviderError::NothingLeft(id.to_owned()))?;
            let number = known.state.disputes.len() + 1;
            let dispute = Dispute { number, money, state: DisputeState::Open, at: now, since: now };
            known.state.disputes.push(dispute);
            let said = [Step::Created, Step::FundsWithdrawn].map(|step| Said::Disputed(dispute, step));
            Ok(spread(rng, said.to_vec(), copies))
        })
    }

    /// The dispute is decided.
    pub fn close_dispute(&self, id: &str, is_won: bool) -> Result<PaymentView, ProviderError> {
        let copies = self.0.settings.copies;
        self.act(id, |entry, rng, now| {
            let mut disputes = entry.known.state.disputes.iter_mut();
            let open = disputes.find(|dispute| dispute.state == DisputeState::Open);
            let dispute = open.ok_or_else(|| ProviderError::NoDispute(id.to_owned()))?;
            (dispute.state, dispute.since) = (if is_won { DisputeState::Won } else { DisputeState::Lost }, now);
            let steps: &[Step] = if is_won { &[Step::FundsReinstated, Step::Closed] } else { &[Step::Closed] };
            let said = steps.iter().map(|step| Said::Disputed(*dispute, *step)).collect();
            Ok(spread(rng, said, copies))
        })
    }

    /// Performs an action on a payment with the payment's own random numbers, and reports it.
    fn act(
        &self,
        id: &str,
        action: impl FnOnce(
            &mut Entry,
            &mut Rng,
            OffsetDateTime,
        ) -> Result<Vec<crate::provider::plan::Report>, ProviderError>,
    ) -> Result<PaymentView, ProviderError> {
        let mut book = lock(&self.0.book);
        let entry = book.entry(id)?;
        // Checked before the action, so every action is reported completely.
        if entry.told.len() + REPORTS_MAX > EVENTS_MAX {
            return Err(ProviderError::Full);
        }
        let mut rng = Rng::with_seed(mix(entry.seed, entry.actions));
        let reports = action(entry, &mut rng, OffsetDateTime::now_utc())?;
        entry.actions += 1;
        self.report(entry, reports, &mut rng);
        Ok(entry.view())
    }
}
