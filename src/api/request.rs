//! `POST /v1/orders`: from the request to an order that can be created. All faults are listed at once.

use crate::domain::{
    AMOUNT_MINOR_MAX, AccountId, CREDITS_MAX, Currency, Money, OrderId, PaymentId, PriceTerms, PriceTermsError,
    PriceTermsKind, Provider, ProviderAccount, tidy,
};
use crate::http::{FAULTS_MAX, Problem};
use crate::provider::Retry;
use crate::store::NewOrder;
use axum::http::HeaderMap;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use time::OffsetDateTime;

/// Longest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// Longest metadata, in bytes of compact JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;

/// Longest `Idempotency-Key`, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// Longest number in metadata, in characters without an exponent. Postgres keeps and returns it that way, and `1e300`
/// has 301 digits.
const NUMBER_CHARS_MAX: usize = 40;

/// Longest address to send a buyer back to, in characters.
const RETURN_URL_CHARS_MAX: usize = 2_000;

/// Longest field name that is repeated to the sender, in bytes.
const NAME_BYTES_MAX: usize = 80;

const KEY_HEADER: &str = "idempotency-key";

/// Reads the idempotency key. The answer is 400 if it is missing or not of the right form.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let refused =
        |detail: String| Problem::bad_request(detail).of_kind("idempotency_key_unusable", "No usable idempotency key");
    let mut values = headers.get_all(KEY_HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(refused(
            "send one Idempotency-Key header: a value of your own for this order, the same for every repetition"
                .to_owned(),
        ));
    };
    let bytes = value.as_bytes();
    let is_printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if bytes.is_empty() || bytes.len() > IDEMPOTENCY_KEY_CHARS_MAX || !is_printable {
        return Err(refused(format!(
            "the Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
        )));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The fields of a JSON object. Each may occur once.
#[derive(Debug)]
pub(super) struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    let shown = tidy(&name, NAME_BYTES_MAX);
                    // Of two values, a proxy may have checked the one that we do not take.
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom(format_args!("the field {shown} is given twice")));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// An order that a site asks for, with every field checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OrderRequest {
    pub(super) account_id: AccountId,
    pub(super) credits: i64,
    pub(super) price: Money,
    /// Which amount of a payment must equal the price.
    pub(super) price_terms: PriceTerms,
    pub(super) provider: Provider,
    /// The account at the provider. `None` is our own.
    pub(super) provider_account: Option<ProviderAccount>,
    /// The payment that the site created. `None` if we are to create it.
    pub(super) payment_id: Option<PaymentId>,
    /// Whether a failed call to the provider is repeated while the site waits. It is not a part of the order, and may
    /// differ when the request is repeated.
    pub(super) retry: Retry,
    /// The address to which PayPal sends the buyer back.
    pub(super) return_url: Option<String>,
    /// A JSON object of the site.
    pub(super) metadata: Value,
}

impl OrderRequest {
    /// Checks all fields. The answer is 422 with everything that is wrong.
    pub(super) fn check(fields: Fields) -> Result<Self, Problem> {
        let mut form = Form { fields: fields.0, faults: vec![] };
        let account_id = form.text("account_id", AccountId::new);
        let credits = form.number("credits", 1..=CREDITS_MAX);
        let amount_minor = form.number("amount_minor", 1..=AMOUNT_MINOR_MAX);
        let currency = form.text("currency", |code| Currency::new(&code));
        let provider = form.text("provider", Provider::new);
        let provider_account = form.optional_text("provider_account", ProviderAccount::new);
        let payment_id = form.optional_text("payment_id", PaymentId::new);
        let retry = form.retry();
        let return_url = form.optional_text("return_url", return_url);
        let metadata = form.metadata();
        let price = amount_minor.zip(currency).and_then(|(amount, currency)| Money::new(amount, currency).ok());
        let price_terms = form.price_terms(price);
        if let (Some(terms), Some(provider)) = (price_terms, &provider) {
            form.refuse_untold_terms(terms, provider, payment_id.is_some());
        }
        form.refuse_the_rest();
        match (account_id, credits, price.zip(price_terms), provider, metadata, form.faults.is_empty()) {
            (Some(account_id), Some(credits), Some((price, price_terms)), Some(provider), Some(metadata), true) => {
                Ok(Self {
                    account_id,
                    credits,
                    price,
                    price_terms,
                    provider,
                    provider_account,
                    payment_id,
                    retry,
                    return_url,
                    metadata,
                })
            }
            _ => Err(form.problem()),
        }
    }

    /// Tells a repeated request from a different one under the same key. It depends on the meaning of the fields, not
    /// on the bytes: blanks and the order of fields do not matter, and a `null` field counts as absent. It is kept in
    /// the database, so its form must stay.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut metadata = self.metadata.clone();
        metadata.sort_all_objects();
        // An array, not an object, so that nothing depends on the order of a map.
        let mut normal = json!([
            "grantonce order v1",
            self.account_id,
            self.credits,
            self.price.amount_minor(),
            self.price.currency(),
            self.provider,
            self.payment_id,
            metadata
        ]);
        // Only if they are given, so that the fields above keep their earlier form.
        if let (Some(_), _) | (_, Some(_)) = (&self.provider_account, &self.return_url)
            && let Some(normal) = normal.as_array_mut()
        {
            normal.push(json!([self.provider_account, self.return_url]));
        }
        // The same: a request without terms means `total`. These are three values, and the ones above are two.
        if self.price_terms != PriceTerms::Total
            && let Some(normal) = normal.as_array_mut()
        {
            let terms = self.price_terms;
            normal.push(json!(["price_terms", terms.name(), terms.discount_max_minor()]));
        }
        Sha256::digest(normal.to_string()).into()
    }

    /// The order to create.
    pub(super) fn to_order(&self, id: OrderId, now: OffsetDateTime, first_look_at: OffsetDateTime) -> NewOrder {
        NewOrder {
            id,
            account_id: self.account_id.clone(),
            credits: self.credits,
            price: self.price,
            price_terms: self.price_terms,
            provider: self.provider.clone(),
            provider_account: self.provider_account.clone(),
            payment_id: self.payment_id.clone(),
            metadata: self.metadata.clone(),
            now,
            first_look_at,
        }
    }
}

/// An address to which the buyer's browser can be sent.
fn return_url(text: String) -> Result<String, String> {
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_web && is_plain && text.len() <= RETURN_URL_CHARS_MAX {
        Ok(text)
    } else {
        Err(format!("must be an https:// address, printable ASCII, at most {RETURN_URL_CHARS_MAX} characters"))
    }
}

/// Fields that are taken out one by one, and their faults.
struct Form {
    fields: BTreeMap<String, Value>,
    faults: Vec<(String, String)>,
}

impl Form {
    /// Takes a field out. `null` counts as absent.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push((tidy(name, NAME_BYTES_MAX), detail.into()));
    }

    fn text<T, E: fmt::Display>(&mut self, name: &str, check: impl FnOnce(String) -> Result<T, E>) -> Option<T> {
        let Some(value) = self.take(name) else {
            self.fault(name, "is required");
            return None;
        };
        let Value::String(text) = value else {
            self.fault(name, "must be a string");
            return None;
        };
        check(text).map_err(|fault| self.fault(name, fault.to_string())).ok()
    }

    fn number(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let Some(value) = self.take(name) else {
            self.fault(name, "is required");
            return None;
        };
        let number = value.as_i64().filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(name, format!("must be a whole number, {} to {}", range.start(), range.end()));
        }
        number
    }

    /// Takes an optional field out.
    fn optional_text<T, E: fmt::Display>(
        &mut self,
        name: &str,
        check: impl FnOnce(String) -> Result<T, E>,
    ) -> Option<T> {
        if self.fields.get(name).is_none_or(Value::is_null) {
            self.fields.remove(name);
            return None;
        }
        self.text(name, check)
    }

    fn retry(&mut self) -> Retry {
        let word = self.optional_text("retry", |word| match word.as_str() {
            "never" => Ok(Retry::Never),
            "backoff" => Ok(Retry::Backoff),
            _ => Err("must be backoff or never"),
        });
        word.unwrap_or(Retry::Backoff)
    }

    /// Which amount of a payment must equal the price. [`PriceTerms::Total`] if the request names none.
    fn price_terms(&mut self, price: Option<Money>) -> Option<PriceTerms> {
        const NAME: &str = "price_terms";
        const LIMIT: &str = "discount_max_minor";
        let faults = self.faults.len();
        let known = |name: String| match PriceTermsKind::from_name(&name) {
            Some(_) => Ok(name),
            None => Err(PriceTermsError::Unknown),
        };
        let name = self.optional_text(NAME, known);
        let limit = self.take(LIMIT);
        let limit_minor = limit.as_ref().and_then(Value::as_i64);
        if limit.is_some() && limit_minor.is_none() {
            self.fault(LIMIT, format!("must be a whole number, 0 to {AMOUNT_MINOR_MAX}"));
        }
        // Without a price nobody can say whether the limit is below it.
        let price = price.filter(|_| self.faults.len() == faults)?;
        let name = name.as_deref().unwrap_or(PriceTerms::Total.name());
        match PriceTerms::new(name, limit_minor, price) {
            Ok(terms) => Some(terms),
            Err(fault) => {
                let field = match fault {
                    PriceTermsError::Unknown => NAME,
                    PriceTermsError::NoDiscountMax
                    | PriceTermsError::NoDiscounts
                    | PriceTermsError::DiscountMax { .. } => LIMIT,
                };
                self.fault(field, fault.to_string());
                None
            }
        }
    }

    /// Refuses terms that no message about the payment could meet: the order would wait forever.
    fn refuse_untold_terms(&mut self, terms: PriceTerms, provider: &Provider, has_payment: bool) {
        if terms == PriceTerms::Total {
            return;
        }
        let name = terms.name();
        if *provider == Provider::ADYEN {
            let detail =
                format!("{name} is not possible at adyen: its notices do not tell tax and discount; use total");
            self.fault("price_terms", detail);
        } else if !has_payment {
            let detail =
                format!("{name} needs a payment whose tax and discount are told: one that we create has neither");
            self.fault("price_terms", detail);
            let detail = format!(
                "is required with price_terms {name}: make a Checkout Session (stripe) or an order with amount.breakdown \
                 (paypal), and pass its id"
            );
            self.fault("payment_id", detail);
        }
    }

    fn metadata(&mut self) -> Option<Value> {
        let metadata = self.take("metadata").unwrap_or_else(|| json!({}));
        if !metadata.is_object() {
            self.fault("metadata", "must be a JSON object");
            return None;
        }
        let bytes = metadata.to_string().len();
        if bytes > METADATA_BYTES_MAX {
            let detail = format!("is {bytes} bytes of JSON; at most {METADATA_BYTES_MAX} are allowed");
            self.fault("metadata", detail);
            return None;
        }
        if let Err(fault) = check_value(&metadata) {
            self.fault("metadata", fault);
            return None;
        }
        Some(metadata)
    }

    fn refuse_the_rest(&mut self) {
        for name in std::mem::take(&mut self.fields).into_keys() {
            self.fault(&name, "is not a field of this request");
        }
    }

    fn problem(self) -> Problem {
        let problem =
            Problem::unprocessable("fields are not as they must be").of_kind("invalid_fields", "Invalid fields");
        self.faults.into_iter().take(FAULTS_MAX).fold(problem, |p, (name, detail)| p.with_field(name, detail))
    }
}

/// Finds values that Postgres would not keep unchanged. The parser has bounded the depth.
fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let is_long = number.as_f64().is_some_and(|number| number.to_string().len() > NUMBER_CHARS_MAX);
            if is_long {
                return Err(format!("has the number {number} with too many digits; send it as a string"));
            }
            Ok(())
        }
        Value::String(text) => check_text(text),
        Value::Array(items) => items.iter().try_for_each(check_value),
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, value)| check_text(name).and_then(|()| check_value(value)))
        }
    }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("must not hold the character U+0000".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
