//! The key by which a payment is found.

use crate::domain::{PaymentId, Provider, ProviderAccount, TextError};

/// The columns of `payments` that identify a payment. Payments are locked in the order of these columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PaymentKey<'a> {
    pub(super) provider: &'a str,
    /// The account at the provider. It is empty for our own account.
    pub(super) account: &'a str,
    pub(super) payment_id: &'a str,
}

impl<'a> PaymentKey<'a> {
    pub(super) fn new(provider: &'a Provider, account: Option<&'a ProviderAccount>, payment_id: &'a PaymentId) -> Self {
        let account = account.map_or("", ProviderAccount::as_str);
        Self { provider: provider.as_str(), account, payment_id: payment_id.as_str() }
    }
}

/// Translates the text of the column to an account.
pub(super) fn account_of(column: String) -> Result<Option<ProviderAccount>, TextError> {
    if column.is_empty() { Ok(None) } else { ProviderAccount::new(column).map(Some) }
}
