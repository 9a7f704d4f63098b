//! What readers see. An order has one form, whether it was just created or read later.

use super::access::Reader;
use super::request::OrderRequest;
use crate::domain::{OrderId, OrderStatus, PriceTerms, ProviderAccount};
use crate::store::{Created, Entry, EntryKind, HandedOut, OrderView};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};

/// An order, as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct OrderBody<'a> {
    id: OrderId,
    status: OrderStatus,
    version: i64,
    credits: i64,
    credits_granted: i64,
    amount_minor: i64,
    currency: String,
    #[serde(flatten)]
    terms: TermsBody,
    payment: PaymentBody<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a str>,
    /// The notes of the site. The buyer does not see them, because the link of the buyer may be passed on.
    #[serde(flatten)]
    of_site: Option<OfSite<'a>>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_token: Option<String>,
}

/// Which amount of a payment must equal the price. Absent if it is the total: earlier answers without terms are
/// repeated byte for byte.
#[derive(Debug, Default, Serialize)]
struct TermsBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    price_terms: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discount_max_minor: Option<i64>,
}

impl From<PriceTerms> for TermsBody {
    fn from(terms: PriceTerms) -> Self {
        match terms {
            PriceTerms::Total => Self::default(),
            PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. } => {
                Self { price_terms: Some(terms.name()), discount_max_minor: terms.discount_max_minor() }
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct OfSite<'a> {
    account_id: &'a str,
    metadata: &'a Value,
}

#[derive(Debug, Serialize)]
struct PaymentBody<'a> {
    provider: &'a str,
    /// Absent if it is our own account.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_account: Option<&'a str>,
    payment_id: Option<&'a str>,
    /// Present only when the payment is handed out to the site. Anybody who has it can pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approve_url: Option<&'a str>,
}

/// Whether the provider will be asked about an order.
#[derive(Debug, Serialize)]
pub(super) struct CheckBody {
    pub(super) id: OrderId,
    pub(super) will_ask: bool,
    /// Why the provider will be asked, or why not.
    pub(super) detail: &'static str,
}

impl<'a> OrderBody<'a> {
    /// An order as it was created. A repeated call gets the same bytes, even if the order has changed.
    pub(super) fn created(
        request: &'a OrderRequest,
        created: &Created,
        payment: &'a HandedOut,
        status_token: String,
    ) -> Self {
        let created_at = created.created_at.to_offset(UtcOffset::UTC);
        Self {
            id: created.id,
            status: OrderStatus::AwaitingPayment,
            version: 1,
            credits: request.credits,
            credits_granted: 0,
            amount_minor: request.price.amount_minor(),
            currency: request.price.currency().to_string(),
            terms: request.price_terms.into(),
            payment: PaymentBody {
                provider: request.provider.as_str(),
                provider_account: request.provider_account.as_ref().map(ProviderAccount::as_str),
                payment_id: Some(payment.payment_id.as_str()),
                client_secret: payment.client_secret.as_deref(),
                approve_url: payment.approve_url.as_deref(),
            },
            last_failure: None,
            of_site: Some(OfSite { account_id: request.account_id.as_str(), metadata: &request.metadata }),
            created_at,
            updated_at: created_at,
            status_token: Some(status_token),
        }
    }

    /// An order as it is now.
    pub(super) fn now(order: &'a OrderView, reader: Reader) -> Self {
        let of_site = match reader {
            Reader::Site => Some(OfSite { account_id: &order.account_id, metadata: &order.metadata }),
            Reader::Buyer => None,
        };
        Self {
            id: order.id,
            status: order.status,
            version: order.version,
            credits: order.credits,
            credits_granted: order.credits_granted,
            amount_minor: order.amount_minor,
            currency: order.currency.clone(),
            terms: order.price_terms.into(),
            payment: PaymentBody {
                provider: &order.provider,
                provider_account: order.provider_account.as_deref(),
                payment_id: order.payment_id.as_deref(),
                client_secret: None,
                approve_url: None,
            },
            // The buyer need not see a failed attempt after a later one succeeded.
            last_failure: order.last_failure.as_deref().filter(|_| match order.status {
                OrderStatus::AwaitingPayment | OrderStatus::Processing | OrderStatus::Canceled => true,
                OrderStatus::Fulfilled
                | OrderStatus::PartiallyRefunded
                | OrderStatus::Refunded
                | OrderStatus::Disputed => false,
            }),
            of_site,
            created_at: order.created_at.to_offset(UtcOffset::UTC),
            updated_at: order.updated_at.to_offset(UtcOffset::UTC),
            status_token: None,
        }
    }
}

/// The balance of an account.
#[derive(Debug, Serialize)]
pub(super) struct BalanceBody<'a> {
    pub(super) account_id: &'a str,
    pub(super) credits: i64,
}

/// A page of the ledger of an account.
#[derive(Debug, Serialize)]
pub(super) struct EntriesBody<'a> {
    pub(super) entries: Vec<EntryBody<'a>>,
    pub(super) next: Option<String>,
}

/// One entry of the ledger.
#[derive(Debug, Serialize)]
pub(super) struct EntryBody<'a> {
    kind: EntryKind,
    order_id: OrderId,
    revision: i32,
    credits: i64,
    reason: &'a str,
    message_id: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl<'a> From<&'a Entry> for EntryBody<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            kind: entry.kind,
            order_id: entry.order_id,
            revision: entry.revision,
            credits: entry.credits,
            reason: &entry.reason,
            message_id: &entry.message_id,
            at: entry.at.to_offset(UtcOffset::UTC),
        }
    }
}
