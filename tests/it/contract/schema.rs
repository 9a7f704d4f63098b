//! The part of JSON Schema 2020-12 that our schema uses. An unknown keyword is a panic, so nothing in the schema goes unchecked.
//!
//! No published validator is used. The best maintained one brings some thirty crates, and builds most of the program's own
//! dependencies a second time, for features that nothing else needs. Two independent validators (ajv in strict mode,
//! python-jsonschema) agreed with this one on every example when it was written.

use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Keywords that describe and do not check. The standard counts `format` among them by default.
const TELLING: &[&str] = &["$schema", "$id", "$defs", "title", "description", "examples", "default", "format"];

pub struct Schema {
    root: Value,
    patterns: BTreeMap<String, Regex>,
}

impl Schema {
    pub fn new(root: Value) -> Self {
        let mut patterns = BTreeMap::new();
        collect_patterns(&root, &mut patterns);
        Self { root, patterns }
    }

    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Why the value is not valid. `None`: it is valid.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.check_against(&self.root, value, "$")
    }

    /// The same for a part of the schema. `at` is the place of the value.
    pub fn check_against(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
            self.check_keyword(keyword, wanted, value, at)?;
        }
        Ok(())
    }

    fn check_keyword(&self, keyword: &str, wanted: &Value, value: &Value, at: &str) -> Result<(), String> {
        let ok = match keyword {
            _ if TELLING.contains(&keyword) => true,
            "$ref" => return self.check_against(self.resolve(wanted), value, at),
            "type" => is_of_type(value, text(wanted)),
            "const" => value == wanted,
            "enum" => list(wanted).contains(value),
            "required" => {
                as_object(value).is_none_or(|object| list(wanted).iter().all(|name| object.contains_key(text(name))))
            }
            "properties" => return self.check_properties(wanted, value, at),
            "items" => return self.check_items(wanted, value, at),
            "allOf" => return list(wanted).iter().try_for_each(|schema| self.check_against(schema, value, at)),
            "anyOf" => self.count_valid(wanted, value, at) > 0,
            "oneOf" => self.count_valid(wanted, value, at) == 1,
            "minimum" => value.as_f64().is_none_or(|number| number >= bound(wanted)),
            "maximum" => value.as_f64().is_none_or(|number| number <= bound(wanted)),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= count(wanted)),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= count(wanted)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= count(wanted)),
            "pattern" => value.as_str().is_none_or(|said| self.patterns[text(wanted)].is_match(said)),
            _ => panic!(
                "the schema's keyword {keyword} is not known here: teach tests/it/contract/schema.rs what it means"
            ),
        };
        if ok { Ok(()) } else { Err(format!("{at}: {value} breaks {keyword}: {wanted}")) }
    }

    fn check_properties(&self, wanted: &Value, value: &Value, at: &str) -> Result<(), String> {
        let Some(object) = as_object(value) else { return Ok(()) };
        let schemas = as_object(wanted).expect("properties is an object");
        schemas
            .iter()
            .filter_map(|(name, schema)| Some((name, schema, object.get(name)?)))
            .try_for_each(|(name, schema, value)| self.check_against(schema, value, &format!("{at}.{name}")))
    }

    fn check_items(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let items = value.as_array().into_iter().flatten();
        items.enumerate().try_for_each(|(n, item)| self.check_against(schema, item, &format!("{at}[{n}]")))
    }

    fn count_valid(&self, schemas: &Value, value: &Value, at: &str) -> usize {
        list(schemas).iter().filter(|schema| self.check_against(schema, value, at).is_ok()).count()
    }

    fn resolve(&self, reference: &Value) -> &Value {
        let pointer = text(reference).strip_prefix('#').expect("a reference within the schema");
        self.root.pointer(pointer).unwrap_or_else(|| panic!("the schema has no {reference}"))
    }

    /// Follows a `$ref`, if there is one.
    pub fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        schema.get("$ref").map_or(schema, |reference| self.resolve(reference))
    }
}

fn collect_patterns(schema: &Value, patterns: &mut BTreeMap<String, Regex>) {
    if let Some(Value::String(pattern)) = schema.get("pattern") {
        patterns.insert(pattern.clone(), Regex::new(pattern).unwrap());
    }
    let below = schema.as_object().into_iter().flat_map(Map::values).chain(schema.as_array().into_iter().flatten());
    below.for_each(|schema| collect_patterns(schema, patterns));
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        // In JSON Schema, 1.0 is an integer too.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => panic!("the schema's type {name} is not known here"),
    }
}

fn as_object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// All our bounds are far below 2^53, up to which this is exact.
fn bound(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn count(value: &Value) -> usize {
    value.as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_else(|| panic!("{value} is no count"))
}
