//! The macro that declares a closed set of names. Every such set in the crate is declared with it.

use serde::de::{Deserializer, Error, Visitor};
use std::fmt;

/// Declares an enum and the public name of each variant in one place.
///
/// The macro writes `ALL`, `NAMES`, `name()`, `from_name()`, `Display`, `FromStr` and serde's two traits. A variant without a name
/// does not compile, and two variants of one name give a warning, which CI refuses.
macro_rules! named {
    ($(#[$of_enum:meta])* $vis:vis enum $enum:ident { $($(#[doc = $doc:literal])* $variant:ident = $name:literal,)+ }) => {
        $(#[$of_enum])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $enum {
            $($(#[doc = $doc])* $variant,)+
        }

        #[allow(dead_code)]
        impl $enum {
            /// Every value, in the order of the declaration.
            $vis const ALL: [Self; $enum::NAMES.len()] = [$(Self::$variant,)+];

            /// Every public name, in the same order.
            $vis const NAMES: &'static [&'static str] = &[$($name,)+];

            /// The public name.
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The paragraphs of the variant's documentation. Pages in `docs/` have the same words.
            $vis fn doc(self) -> Vec<String> {
                let lines: &[&str] = match self {
                    $(Self::$variant => &[$($doc),*],)+
                };
                $crate::named::paragraphs(lines)
            }

            /// The value of a public name.
            $vis fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::named::NoSuchName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::from_name(name).ok_or($crate::named::NoSuchName(Self::NAMES))
            }
        }

        impl serde::Serialize for $enum {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $enum {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::named::read(deserializer, Self::from_name, Self::NAMES)
            }
        }
    };
}

/// A text is not one of the names of its set. The message lists the names that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchName(pub &'static [&'static str]);

impl fmt::Display for NoSuchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one, other] => write!(f, "must be {one} or {other}"),
            names => write!(f, "must be one of {}", names.join(", ")),
        }
    }
}

impl std::error::Error for NoSuchName {}

/// Joins lines; an empty line ends a paragraph. For the macro.
pub(crate) fn paragraphs(lines: &[&str]) -> Vec<String> {
    let joined = |lines: &[&str]| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    lines.split(|line| line.trim().is_empty()).map(joined).collect()
}

/// Reads one of the names. For the macro.
pub(crate) fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    from_name: fn(&str) -> Option<T>,
    names: &'static [&'static str],
) -> Result<T, D::Error> {
    struct Name<T>(fn(&str) -> Option<T>, &'static [&'static str]);

    impl<T> Visitor<'_> for Name<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of {}", self.1.join(", "))
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
            self.0(name).ok_or_else(|| E::unknown_variant(name, self.1))
        }
    }

    deserializer.deserialize_str(Name(from_name, names))
}

#[cfg(test)]
mod tests {
    use super::NoSuchName;

    named! {
        /// For the tests.
        enum Colour {
            /// The first one.
            Red = "red",
            /// Its name is not derived
            /// from the variant's.
            ///
            /// More.
            Dark = "dark-blue",
        }
    }

    #[test]
    fn every_form_of_a_name_is_the_declared_one() {
        assert_eq!(Colour::ALL, [Colour::Red, Colour::Dark]);
        assert_eq!(Colour::NAMES, ["red", "dark-blue"]);
        for colour in Colour::ALL {
            let json = format!("{:?}", colour.name());
            assert_eq!(colour.to_string(), colour.name());
            assert_eq!(Colour::from_name(colour.name()), Some(colour));
            assert_eq!(colour.name().parse(), Ok(colour));
            assert_eq!(serde_json::to_string(&colour).unwrap(), json);
            assert_eq!(serde_json::from_str::<Colour>(&json).unwrap(), colour);
        }
        assert_eq!("Red".parse::<Colour>(), Err(NoSuchName(&["red", "dark-blue"])));
        let refused = serde_json::from_str::<Colour>("\"blue\"").unwrap_err().to_string();
        assert!(refused.starts_with("unknown variant `blue`, expected `red` or `dark-blue`"), "{refused}");
        assert!(serde_json::from_str::<Colour>("1").is_err());
        assert_eq!(Colour::Dark.doc(), ["Its name is not derived from the variant's.", "More."]);
        assert_eq!(NoSuchName(&["a", "b"]).to_string(), "must be a or b");
        assert_eq!(NoSuchName(&["a", "b", "c"]).to_string(), "must be one of a, b, c");
    }
}
