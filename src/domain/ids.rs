//! Identifiers. Each is a type of its own, so one cannot be used in the place of another.

use super::text::{TextError, check_id};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest identifier that is accepted, in bytes. Providers' ids are much shorter (Stripe documents 255).
const ID_BYTES_MAX: usize = 255;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a text: not empty, within its bound in bytes, without control characters, and without blanks at
            /// either end.
            pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
                let text = text.into();
                check_id(&text, $max)?;
                Ok(Self(text))
            }

            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text itself, owned.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;
            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// The identity of a message. The inbox admits each id once. Our receiver forms it as `<path>:<account>:<event>[:<type>][#n]`.
    /// A relay forms its own, which begins with `<provider>:`.
    MessageId,
    ID_BYTES_MAX
);
text_id!(
    /// One of the ids of a payment at its provider (Stripe: `pi_…`, `cs_…`, `ch_…`).
    PaymentId,
    ID_BYTES_MAX
);
text_id!(
    /// The site's id of the account that gets the credits. grantonce does not interpret it.
    AccountId,
    ID_BYTES_MAX
);
text_id!(
    /// The provider's id of one capture, refund or dispute within a payment.
    FactId,
    ID_BYTES_MAX
);
text_id!(
    /// The account at the provider that a payment belongs to, if it is not our own (Stripe Connect: `acct_…`).
    ProviderAccount,
    ID_BYTES_MAX
);

impl MessageId {
    /// The id of a message that brought no usable id: `<provider>::sha256-<digest in hex>`, with the digest of its body. At most
    /// 105 bytes.
    pub fn from_digest(provider: &Provider, sha256: [u8; 32]) -> Self {
        Self(format!("{provider}::sha256-{}", hex::encode(sha256)))
    }
}

/// The name of a payment provider in routing keys: `stripe`, `paypal`, `adyen`, `standard`, or a relay's own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Provider(Cow<'static, str>);

impl Provider {
    /// The provider Stripe (card payments).
    pub const STRIPE: Self = Self(Cow::Borrowed("stripe"));
    /// The provider Adyen (standard webhooks).
    pub const ADYEN: Self = Self(Cow::Borrowed("adyen"));
    /// Every sender that has a secret of our Standard Webhooks endpoint.
    pub const STANDARD: Self = Self(Cow::Borrowed("standard"));
    /// The provider PayPal (orders and captures).
    pub const PAYPAL: Self = Self(Cow::Borrowed("paypal"));

    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// Takes `[a-z0-9][a-z0-9_-]*`, at most 32 bytes. The name becomes one word of an AMQP routing key and a metric label.
    pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
        const FORM: &str = "1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit";
        let text = text.into();
        let bytes = text.as_bytes();
        let ok = matches!(bytes.first(), Some(b'a'..=b'z' | b'0'..=b'9'))
            && bytes.len() <= Self::BYTES_MAX
            && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if ok { Ok(Self(Cow::Owned(text))) } else { Err(TextError::BadForm(FORM)) }
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Provider {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Our own id of an order: a UUID of version 7, so the keys of new orders lie side by side in their index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct OrderId(pub uuid::Uuid);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        // Only the hyphenated form is accepted, so an order has one spelling everywhere.
        if text.len() != 36 {
            return Err(TextError::BadForm("a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"));
        }
        uuid::Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| TextError::BadForm("a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"))
    }
}

impl<'de> Deserialize<'de> for OrderId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_postgres_or_a_log_line_would_choke_on() {
        assert_eq!(MessageId::new(""), Err(TextError::Empty));
        assert!(matches!(MessageId::new("a\0b"), Err(TextError::BadCharacter { at: 1, .. })));
        assert!(matches!(MessageId::new("a\nb"), Err(TextError::BadCharacter { at: 1, .. })));
        assert!(matches!(MessageId::new(" a"), Err(TextError::BadForm(_))));
        assert!(matches!(MessageId::new("x".repeat(256)), Err(TextError::TooLong { bytes: 256, max_bytes: 255 })));
        assert!(MessageId::new("x".repeat(255)).is_ok());
    }

    #[test]
    fn a_provider_is_one_word_of_a_routing_key() {
        for good in ["stripe", "acme-pay", "p2", "a_b"] {
            assert!(Provider::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Stripe", "a.b", "#", "*", "-a", "ä", &"x".repeat(33)] {
            assert!(Provider::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_made_without_a_check_would_pass_it() {
        for known in [Provider::STRIPE, Provider::ADYEN, Provider::STANDARD] {
            assert_eq!(Provider::new(known.as_str()), Ok(known));
        }
        let longest = Provider::new("x".repeat(Provider::BYTES_MAX)).unwrap();
        let id = MessageId::from_digest(&longest, [255; 32]);
        assert_eq!(id.as_str().len(), 105);
        assert_eq!(MessageId::new(id.as_str()), Ok(id));
    }

    #[test]
    fn an_order_id_has_one_spelling() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(id.parse::<OrderId>().map(|id| id.to_string()), Ok(id.to_owned()));
        assert!("01890a5dac96774bbcceb302099a8057".parse::<OrderId>().is_err());
        assert!("{01890a5d-ac96-774b-bcce-b302099a8057}".parse::<OrderId>().is_err());
        let read = |text: &str| serde_json::from_value::<OrderId>(text.into());
        assert_eq!(read(id).map(|id| id.to_string()).ok(), Some(id.to_owned()));
        assert!(read("01890a5dac96774bbcceb302099a8057").is_err(), "in JSON too");
    }
}
