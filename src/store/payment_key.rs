//! By what a payment is known.

use crate::domain::{PaymentId, Provider, ProviderAccount, TextError};

/// What tells one payment from another: the columns of `payments`. Their order is that in which payments are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PaymentKey<'a> {
    pub(super) provider: &'a str,
    /// Empty where it is our own.
    pub(super) account: &'a str,
    pub(super) payment_id: &'a str,
}

impl<'a> PaymentKey<'a> {
    pub(super) fn new(provider: &'a Provider, account: Option<&'a ProviderAccount>, payment_id: &'a PaymentId) -> Self {
        let account = account.map_or("", ProviderAccount::as_str);
        Self { provider: provider.as_str(), account, payment_id: payment_id.as_str() }
    }
}

/// An account as its column has it.
pub(super) fn account_of(column: String) -> Result<Option<ProviderAccount>, TextError> {
    if column.is_empty() { Ok(None) } else { ProviderAccount::new(column).map(Some) }
}
