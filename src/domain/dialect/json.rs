//! Reading a provider's JSON so that what is missing or odd is named, and no value of the body gets into the words.

use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// What is odd about a field, in words that complete "the field …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct Odd {
    field: String,
    fault: String,
}

/// A JSON object and where it lies in the body. A field that is null counts as missing throughout: providers do not
/// tell the two apart.
#[derive(Clone, Copy)]
pub struct Object<'v> {
    path: &'static str,
    fields: &'v Map<String, Value>,
}

impl<'v> Object<'v> {
    /// The whole body; none where it is something other than an object.
    pub fn root(body: &'v Value) -> Option<Self> {
        Self::at(body, "")
    }

    /// An object that lies at `path`; none where it is something else.
    pub fn at(value: &'v Value, path: &'static str) -> Option<Self> {
        value.as_object().map(|fields| Self { path, fields })
    }

    /// An object within; `path` is where it lies from the root on, for the words.
    pub fn object(&self, field: &str, path: &'static str) -> Result<Self, Odd> {
        let fields =
            self.value(field).map(|value| value.as_object().ok_or_else(|| self.odd(field, "must be an object")));
        Ok(Self { path, fields: fields.ok_or_else(|| self.missing(field))?? })
    }

    /// A list of objects within; one that is missing is empty. `path` is what each of them is called in the words.
    pub fn list(&self, field: &str, path: &'static str) -> Result<Vec<Self>, Odd> {
        let Some(value) = self.value(field) else { return Ok(Vec::new()) };
        let all = value.as_array().and_then(|items| items.iter().map(|item| Self::at(item, path)).collect());
        all.ok_or_else(|| self.odd(field, "must be a list of objects"))
    }

    /// A field's value, unless it is missing.
    pub fn value(&self, field: &str) -> Option<&'v Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A text that has to be there.
    pub fn text(&self, field: &str) -> Result<&'v str, Odd> {
        self.value(field).ok_or_else(|| self.missing(field))?.as_str().ok_or_else(|| self.odd(field, "must be a text"))
    }

    /// A text that has to be there and to be well-formed.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&self, field: &str) -> Result<T, Odd> {
        self.text(field)?.parse().map_err(|fault| self.odd(field, fault))
    }

    /// A whole number that has to be there.
    pub fn integer(&self, field: &str) -> Result<i64, Odd> {
        let value = self.value(field).ok_or_else(|| self.missing(field))?;
        value.as_i64().ok_or_else(|| self.odd(field, "must be a whole number"))
    }

    /// True or false.
    pub fn flag(&self, field: &str) -> Result<bool, Odd> {
        let value = self.value(field).ok_or_else(|| self.missing(field))?;
        value.as_bool().ok_or_else(|| self.odd(field, "must be true or false"))
    }

    /// Names a field and its fault.
    pub fn odd(&self, field: &str, fault: impl fmt::Display) -> Odd {
        let dot = if self.path.is_empty() { "" } else { "." };
        Odd { field: format!("{}{dot}{field}", self.path), fault: fault.to_string() }
    }

    fn missing(&self, field: &str) -> Odd {
        self.odd(field, "is missing")
    }
}
