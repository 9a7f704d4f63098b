//! Money as the simulated providers count it: minor units of ISO 4217, and the units of Stripe and PayPal.

use std::fmt;

/// The largest amount of a payment, in minor units.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// Why an amount of money is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The amount is negative or too large.
    #[error("amount_minor is {0}; it must lie between 0 and {AMOUNT_MINOR_MAX}")]
    OutOfRange(i64),
    /// The currency is not written with three capital letters.
    #[error("currency {0:?} is not of three capital letters")]
    BadCurrency(String),
}

/// The code of a currency, with three capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Creates a currency from three capital letters.
    pub fn new(code: &str) -> Result<Self, MoneyError> {
        let bytes = <[u8; 3]>::try_from(code.as_bytes()).ok();
        let bytes = bytes.filter(|bytes| bytes.iter().all(u8::is_ascii_uppercase));
        bytes.map(Self).ok_or_else(|| MoneyError::BadCurrency(code.to_owned()))
    }

    /// The code of the currency.
    pub fn as_str(&self) -> &str {
        // Three ASCII letters are always UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The number of decimals in ISO 4217.
    pub fn decimals(self) -> u32 {
        match self.as_str() {
            "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
            | "XAF" | "XOF" | "XPF" => 0,
            "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
            _ => 2,
        }
    }

    /// The number of decimals that Stripe counts: <https://docs.stripe.com/currencies>.
    fn decimals_at_stripe(self) -> u32 {
        match self.as_str() {
            "MGA" => 0,
            "ISK" | "UGX" => 2,
            _ => self.decimals(),
        }
    }

    /// The number of decimals that PayPal writes: <https://developer.paypal.com/api/rest/reference/currency-codes/>.
    fn decimals_at_paypal(self) -> u32 {
        match self.as_str() {
            "HUF" | "JPY" | "TWD" => 0,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount in minor units of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    amount_minor: i64,
    currency: Currency,
}

impl Money {
    /// Creates money from an amount between 0 and [`AMOUNT_MINOR_MAX`].
    pub fn new(amount_minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        let is_in_range = (0..=AMOUNT_MINOR_MAX).contains(&amount_minor);
        if is_in_range { Ok(Self { amount_minor, currency }) } else { Err(MoneyError::OutOfRange(amount_minor)) }
    }

    /// Creates money from an amount in Stripe's units.
    pub fn from_stripe(units: i64, currency: Currency) -> Option<Self> {
        let amount_minor = rescale(units, currency.decimals_at_stripe(), currency.decimals())?;
        Self::new(amount_minor, currency).ok()
    }

    /// Creates money from an amount as PayPal writes it, such as `19.99`.
    pub fn from_paypal(value: &str, currency: Currency) -> Option<Self> {
        let (whole, part) = value.split_once('.').unwrap_or((value, ""));
        let units: i64 = format!("{whole}{part}").parse().ok()?;
        let amount_minor = rescale(units, u32::try_from(part.len()).ok()?, currency.decimals())?;
        Self::new(amount_minor, currency).ok()
    }

    /// The amount in minor units.
    pub fn amount_minor(self) -> i64 {
        self.amount_minor
    }

    /// The currency of the amount.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// The amount in Stripe's units. An amount that Stripe cannot express is unchanged.
    pub fn at_stripe(self) -> i64 {
        let Self { amount_minor, currency } = self;
        rescale(amount_minor, currency.decimals(), currency.decimals_at_stripe()).unwrap_or(amount_minor)
    }

    /// The amount as PayPal writes it. Empty if PayPal cannot express it.
    pub fn at_paypal(self) -> String {
        let Self { amount_minor, currency } = self;
        let decimals = currency.decimals_at_paypal();
        rescale(amount_minor, currency.decimals(), decimals).map_or_else(String::new, |units| digits(units, decimals))
    }

    /// The amount as people write it, such as `19.99 USD`.
    pub fn written(self) -> String {
        format!("{} {}", digits(self.amount_minor, self.currency.decimals()), self.currency)
    }
}

fn digits(units: i64, decimals: u32) -> String {
    let decimals = usize::try_from(decimals).unwrap_or_default();
    let digits = format!("{units:0>width$}", width = decimals + 1);
    let (whole, part) = digits.split_at(digits.len() - decimals);
    if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
}

/// The same amount with another number of decimals. `None` if it is not exact.
fn rescale(units: i64, from: u32, to: u32) -> Option<i64> {
    if to >= from {
        return units.checked_mul(10_i64.checked_pow(to - from)?);
    }
    let step = 10_i64.checked_pow(from - to)?;
    (units % step == 0).then_some(units / step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_counts_in_its_own_units() {
        for (amount_minor, code, stripe, paypal, written) in [
            (1999, "USD", 1999, "19.99", "19.99 USD"),
            (5, "EUR", 5, "0.05", "0.05 EUR"),
            (500, "JPY", 500, "500", "500 JPY"),
            (7, "ISK", 700, "7.00", "7 ISK"),
            (50_000, "HUF", 50_000, "500", "500.00 HUF"),
            (1230, "KWD", 1230, "1.23", "1.230 KWD"),
        ] {
            let currency = Currency::new(code).unwrap();
            let money = Money::new(amount_minor, currency).unwrap();
            assert_eq!(
                (money.at_stripe(), money.at_paypal().as_str(), money.written().as_str()),
                (stripe, paypal, written)
            );
            assert_eq!(Money::from_stripe(stripe, currency), Some(money));
            assert_eq!(Money::from_paypal(paypal, currency), Some(money));
        }
        assert_eq!(Money::new(1999, Currency::new("HUF").unwrap()).unwrap().at_paypal(), "");
        assert!(Money::new(-1, Currency::new("USD").unwrap()).is_err());
        for code in ["usd", "US", "USDX", "U$D"] {
            assert!(Currency::new(code).is_err(), "{code}");
        }
    }
}
