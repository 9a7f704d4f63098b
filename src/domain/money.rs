//! Money: an integer of minor units and an ISO 4217 currency. No floating point anywhere.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Largest accepted amount, in minor units: 10^15. It is far above any payment, and far below the point where sums of facts
/// overflow.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// Why an amount or a currency was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not three capital letters of ISO 4217's list of active codes.
    #[error("{0:?} is not an ISO 4217 currency code such as USD")]
    UnknownCurrency(String),
    /// Below zero, or above [`AMOUNT_MINOR_MAX`].
    #[error("amount_minor is {0}; it must lie between 0 and {AMOUNT_MINOR_MAX}")]
    OutOfRange(i64),
    /// An amount in a provider's own unit that is no whole number of ISO minor units.
    #[error("{amount} with {given_decimals} decimals is no whole number of {currency} minor units")]
    NotExact {
        /// The amount as the provider gave it.
        amount: i64,
        /// How many decimals the provider counts for this currency.
        given_decimals: u8,
        /// The currency of the amount.
        currency: Currency,
    },
    /// A provider counts fewer decimals for this currency, and cannot express the amount.
    #[error("{amount_minor} {currency} minor units are no whole number with {decimals} decimals")]
    Finer {
        /// The amount, in ISO 4217 minor units.
        amount_minor: i64,
        /// How many decimals the provider counts for this currency.
        decimals: u8,
        /// The currency of the amount.
        currency: Currency,
    },
}

/// An ISO 4217 currency in use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    decimals: u8,
}

/// The codes in use, grouped by their decimals, the largest group first, each in alphabetical order: list one of ISO 4217, without
/// metals, tests and funds of no country.
#[rustfmt::skip]
static LISTED: [(u8, &[&str]); 4] = [
    (2, &[
        "AED", "AFN", "ALL", "AMD", "ANG", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BGN", "BMD", "BND",
        "BOB", "BOV", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHE", "CHF", "CHW", "CNY", "COP", "COU",
        "CRC", "CUP", "CVE", "CZK", "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS",
        "GIP", "GMD", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD", "KES", "KGS", "KHR",
        "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU",
        "MUR", "MVR", "MWK", "MXN", "MXV", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK",
        "PHP", "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS",
        "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD",
        "USN", "UYU", "UZS", "VED", "VES", "WST", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
    ]),
    (0, &[
        "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
        "XPF",
    ]),
    (3, &[
        "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND",
    ]),
    (4, &[
        "CLF", "UYW",
    ]),
];

impl Currency {
    /// Takes three capital letters from the list of ISO 4217.
    pub fn new(code: &str) -> Result<Self, MoneyError> {
        LISTED
            .iter()
            .find_map(|(decimals, codes)| {
                let at = codes.binary_search(&code).ok()?;
                codes.get(at).map(|code| Self { code, decimals: *decimals })
            })
            .ok_or_else(|| MoneyError::UnknownCurrency(code.chars().take(16).collect()))
    }

    /// The three letters of the code.
    pub fn as_str(&self) -> &'static str {
        self.code
    }

    /// The number of decimals that ISO 4217 gives the currency: the minor unit is 10^-decimals.
    pub fn decimals(self) -> u8 {
        self.decimals
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(code: &str) -> Result<Self, MoneyError> {
        Self::new(code)
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::new(&code).map_err(serde::de::Error::custom)
    }
}

/// The same amount with another number of decimals. `None` if it is not a whole number then.
fn rescale(amount: i64, from_decimals: u8, to_decimals: u8) -> Result<Option<i64>, MoneyError> {
    let factor =
        10_i64.checked_pow(u32::from(from_decimals.abs_diff(to_decimals))).ok_or(MoneyError::OutOfRange(amount))?;
    if from_decimals <= to_decimals {
        amount.checked_mul(factor).map(Some).ok_or(MoneyError::OutOfRange(amount))
    } else {
        Ok((amount % factor == 0).then_some(amount / factor))
    }
}

/// An amount of money: 0 to 10^15 ISO 4217 minor units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct Money {
    amount_minor: i64,
    currency: Currency,
}

impl Money {
    /// An amount whose range is checked.
    pub fn new(amount_minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if (0..=AMOUNT_MINOR_MAX).contains(&amount_minor) {
            Ok(Self { amount_minor, currency })
        } else {
            Err(MoneyError::OutOfRange(amount_minor))
        }
    }

    /// Converts an amount with `given_decimals` decimals into ISO 4217 minor units, exactly or not at all.
    pub fn from_units(amount: i64, given_decimals: u8, currency: Currency) -> Result<Self, MoneyError> {
        let amount_minor = rescale(amount, given_decimals, currency.decimals())?.ok_or(MoneyError::NotExact {
            amount,
            given_decimals,
            currency,
        })?;
        Self::new(amount_minor, currency)
    }

    /// The amount with `decimals` decimals, exactly or not at all. The inverse of [`Money::from_units`].
    pub fn to_units(self, decimals: u8) -> Result<i64, MoneyError> {
        let Self { amount_minor, currency } = self;
        rescale(amount_minor, currency.decimals(), decimals)?.ok_or(MoneyError::Finer {
            amount_minor,
            decimals,
            currency,
        })
    }

    /// ISO 4217 minor units.
    pub fn amount_minor(&self) -> i64 {
        self.amount_minor
    }

    /// The currency of the amount.
    pub fn currency(&self) -> Currency {
        self.currency
    }
}

impl Money {
    /// The amount for people: `19.99 USD`, `1500 JPY`.
    pub fn written(self) -> String {
        let decimals = usize::from(self.currency.decimals());
        let digits = format!("{:0>width$}", self.amount_minor, width = decimals + 1);
        let (whole, part) = digits.split_at(digits.len() - decimals);
        let dot = if part.is_empty() { "" } else { "." };
        format!("{whole}{dot}{part} {}", self.currency)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (minor units)", self.amount_minor, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::new(code).unwrap()
    }

    #[test]
    fn currencies_are_iso_4217_in_capitals() {
        for (code, decimals) in [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ISK", 0), ("MGA", 2)] {
            assert_eq!(currency(code).decimals(), decimals, "{code}");
        }
        for (_, codes) in LISTED {
            assert!(codes.is_sorted(), "the search needs it");
        }
        for bad in ["usd", "US", "USDT", "", "XXX", "XTS", "A B", "É1"] {
            assert!(Currency::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_written_as_people_do() {
        for (minor, code, text) in
            [(1999, "USD", "19.99 USD"), (5, "EUR", "0.05 EUR"), (1500, "JPY", "1500 JPY"), (1234, "KWD", "1.234 KWD")]
        {
            assert_eq!(Money::new(minor, currency(code)).unwrap().written(), text);
        }
    }

    #[test]
    fn amounts_have_a_range() {
        assert!(Money::new(-1, currency("USD")).is_err());
        assert!(Money::new(0, currency("USD")).is_ok());
        assert!(Money::new(AMOUNT_MINOR_MAX, currency("USD")).is_ok());
        assert!(Money::new(AMOUNT_MINOR_MAX + 1, currency("USD")).is_err());
        assert!(Money::new(i64::MIN, currency("USD")).is_err());
    }

    #[test]
    fn conversion_is_exact_or_refused() {
        let minor =
            |amount, decimals, code| Money::from_units(amount, decimals, currency(code)).map(|m| m.amount_minor());
        assert_eq!(minor(500, 2, "ISK"), Ok(5));
        assert!(matches!(minor(550, 2, "ISK"), Err(MoneyError::NotExact { .. })));
        assert_eq!(minor(5, 0, "MGA"), Ok(500));
        assert_eq!(minor(1999, 2, "USD"), Ok(1999));
        assert!(matches!(minor(i64::MAX, 0, "USD"), Err(MoneyError::OutOfRange(_))));
        assert!(matches!(minor(1, 255, "USD"), Err(MoneyError::OutOfRange(_))));
    }

    #[test]
    fn the_way_back_is_exact_or_refused() {
        let units =
            |amount, decimals, code| Money::new(amount, currency(code)).and_then(|money| money.to_units(decimals));
        assert_eq!(units(5, 2, "ISK"), Ok(500));
        assert_eq!(units(500, 0, "MGA"), Ok(5));
        assert!(matches!(units(550, 0, "MGA"), Err(MoneyError::Finer { decimals: 0, .. })));
        assert_eq!(units(1999, 2, "USD"), Ok(1999));
        assert!(matches!(units(AMOUNT_MINOR_MAX, 8, "USD"), Err(MoneyError::OutOfRange(_))));
    }
}
