//! Reads a provider's JSON. Errors name the missing or odd field, and never contain a value of the body.
//!
//! Two kinds of JSON can be read. [`Value`] owns its content. [`Body`] is for webhooks and borrows its texts from the received
//! bytes: owning them took a tenth of the receiver's time for a webhook.

mod body;

pub use body::{Body, mended};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// What is wrong with a field, as text that completes "the field …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct Odd {
    field: String,
    fault: String,
}

/// Any piece of JSON, of either kind.
#[derive(Debug, Clone, Copy)]
pub enum Part<'v> {
    /// The value `null`.
    Null,
    /// The value `true` or `false`.
    Flag(bool),
    /// A number as it is written.
    Number(&'v Number),
    /// A text without its escapes.
    Text(&'v str),
    /// A list of values.
    List(List<'v>),
    /// An object with its fields.
    Object(Fields<'v>),
}

/// The items of a list.
#[derive(Debug, Clone, Copy)]
pub enum List<'v> {
    /// The items of a [`Value`].
    Owned(&'v [Value]),
    /// The items of a [`Body`].
    Read(&'v [Body<'v>]),
}

/// The fields of an object.
#[derive(Debug, Clone, Copy)]
pub enum Fields<'v> {
    /// The fields of a [`Value`].
    Owned(&'v Map<String, Value>),
    /// The fields of a [`Body`].
    Read(&'v [(Cow<'v, str>, Body<'v>)]),
}

impl<'v> From<&'v Value> for Part<'v> {
    fn from(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Flag(*flag),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(List::Owned(items)),
            Value::Object(fields) => Self::Object(Fields::Owned(fields)),
        }
    }
}

impl<'v> From<&'v Body<'v>> for Part<'v> {
    fn from(body: &'v Body<'v>) -> Self {
        match body {
            Body::Null => Self::Null,
            Body::Flag(flag) => Self::Flag(*flag),
            Body::Number(number) => Self::Number(number),
            Body::Text(text) => Self::Text(text),
            Body::List(items) => Self::List(List::Read(items)),
            Body::Object(fields) => Self::Object(Fields::Read(fields)),
        }
    }
}

impl<'v> Part<'v> {
    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if it is one.
    pub fn as_str(self) -> Option<&'v str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The boolean, if it is one.
    pub fn as_bool(self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(flag) } else { None }
    }

    /// The whole number, if it is one and fits.
    pub fn as_i64(self) -> Option<i64> {
        if let Self::Number(number) = self { number.as_i64() } else { None }
    }

    /// The items, if it is a list.
    pub fn as_array(self) -> Option<impl Iterator<Item = Self>> {
        let Self::List(list) = self else { return None };
        let (owned, read): (&[Value], &[Body<'v>]) = match list {
            List::Owned(items) => (items, &[]),
            List::Read(items) => (&[], items),
        };
        Some(owned.iter().map(Self::from).chain(read.iter().map(Self::from)))
    }

    /// A field, if this is an object that has it, also if the field is `null`.
    pub fn get(self, field: &str) -> Option<Self> {
        if let Self::Object(fields) = self { fields.get(field) } else { None }
    }
}

impl<'v> Fields<'v> {
    /// The value of a field. If a name occurs several times, the last one counts, in either kind of JSON.
    fn get(self, field: &str) -> Option<Part<'v>> {
        match self {
            Self::Owned(fields) => fields.get(field).map(Part::from),
            Self::Read(fields) => fields.iter().rev().find(|(name, _)| name == field).map(|(_, value)| value.into()),
        }
    }
}

/// A JSON object and its path in the body. A `null` field counts as missing everywhere, because providers do not distinguish the
/// two.
#[derive(Clone, Copy)]
pub struct Object<'v> {
    path: &'static str,
    fields: Fields<'v>,
}

impl<'v> Object<'v> {
    /// The whole body. `None` if it is not an object.
    pub fn root(body: impl Into<Part<'v>>) -> Option<Self> {
        Self::at(body, "")
    }

    /// The object at `path`. `None` if it is not an object.
    pub fn at(value: impl Into<Part<'v>>, path: &'static str) -> Option<Self> {
        if let Part::Object(fields) = value.into() { Some(Self { path, fields }) } else { None }
    }

    /// An object inside this one. `path` is its place from the root, for errors.
    pub fn object(&self, field: &str, path: &'static str) -> Result<Self, Odd> {
        let value = self.value(field).ok_or_else(|| self.missing(field))?;
        Self::at(value, path).ok_or_else(|| self.odd(field, "must be an object"))
    }

    /// A list of objects inside this one. A missing list is empty. `path` is the name of an item in errors.
    pub fn list(&self, field: &str, path: &'static str) -> Result<Vec<Self>, Odd> {
        let Some(value) = self.value(field) else { return Ok(Vec::new()) };
        let all = value.as_array().and_then(|items| items.map(|item| Self::at(item, path)).collect());
        all.ok_or_else(|| self.odd(field, "must be a list of objects"))
    }

    /// The value of a field, unless it is missing.
    pub fn value(&self, field: &str) -> Option<Part<'v>> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// Whether a field is present and `null`.
    pub fn has_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Part::is_null)
    }

    /// A required text without lost characters.
    pub fn text(&self, field: &str) -> Result<&'v str, Odd> {
        let value = self.value(field).ok_or_else(|| self.missing(field))?;
        let text = value.as_str().ok_or_else(|| self.odd(field, "must be a text"))?;
        whole(text).map_err(|fault| self.odd(field, fault))
    }

    /// A required text in the right form.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&self, field: &str) -> Result<T, Odd> {
        self.text(field)?.parse().map_err(|fault| self.odd(field, fault))
    }

    /// A required whole number.
    pub fn integer(&self, field: &str) -> Result<i64, Odd> {
        let value = self.value(field).ok_or_else(|| self.missing(field))?;
        value.as_i64().ok_or_else(|| self.odd(field, "must be a whole number"))
    }

    /// Reads a boolean that is required.
    pub fn flag(&self, field: &str) -> Result<bool, Odd> {
        let value = self.value(field).ok_or_else(|| self.missing(field))?;
        value.as_bool().ok_or_else(|| self.odd(field, "must be true or false"))
    }

    /// An error that names the field and its fault.
    pub fn odd(&self, field: &str, fault: impl fmt::Display) -> Odd {
        let dot = if self.path.is_empty() { "" } else { "." };
        Odd { field: format!("{}{dot}{field}", self.path), fault: fault.to_string() }
    }

    fn missing(&self, field: &str) -> Odd {
        self.odd(field, "is missing")
    }
}

/// The text, if no part of it was lost. U+FFFD stands in the place of a character that was cut in two.
pub(super) fn whole(text: &str) -> Result<&str, String> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("has a broken character in it".to_owned());
    }
    Ok(text)
}
