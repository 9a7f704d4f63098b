//! Every answer in these tests is compared with `contract/openapi.json`.

use reqwest::Method;
use serde_json::Value;

/// The contract.
pub(crate) struct Contract(Value);

impl Contract {
    /// Reads the contract of the ops role.
    pub(crate) fn of_ops() -> Self {
        Self(serde_json::from_str(include_str!("../../../contract/openapi-ops.json")).unwrap())
    }

    /// Every path with its methods.
    pub(crate) fn operations(&self) -> Vec<(String, String)> {
        let methods = |(path, operations): (&String, &Value)| {
            let known = ["get", "post"].into_iter().filter(|method| operations.get(method).is_some());
            known.map(|method| (path.clone(), method.to_owned())).collect::<Vec<_>>()
        };
        self.0["paths"].as_object().unwrap().iter().flat_map(methods).collect()
    }

    /// Reads the contract of receiver and API.
    pub(crate) fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../../contract/openapi.json")).unwrap())
    }

    /// Fails the test if the status or body of the answer is not in the contract. Undocumented paths are not judged.
    pub(crate) fn hold(&self, method: &Method, path: &str, (status, media_type, text): (u16, &str, &str)) {
        let path = path.split('?').next().unwrap();
        let Some(operation) = self.operation(method, path) else { return };
        let at = format!("{method} {path} {status}: {text}");
        let response = self.deref(&operation["responses"][status.to_string()]);
        assert!(response.is_object(), "the status is not documented: {at}");
        let Some(content) = response.get("content") else { return };
        let media_type = media_type.split(';').next().unwrap();
        let documented = content.get(media_type);
        let schema = &documented.unwrap_or_else(|| panic!("{media_type:?} is not documented: {at}"))["schema"];
        if media_type != "text/plain" {
            self.check(schema, &serde_json::from_str(text).unwrap()).unwrap_or_else(|fault| panic!("{fault}: {at}"));
        }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let is_of = |pattern: &str| {
            let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
            let fits = |(pattern, part): (&&str, &&str)| pattern == part || pattern.starts_with('{');
            pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
        };
        let (_, operations) = self.0["paths"].as_object().unwrap().iter().find(|(pattern, _)| is_of(pattern))?;
        operations.get(method.as_str().to_ascii_lowercase())
    }

    fn deref<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref") {
            Some(reference) => self.0.pointer(reference.as_str().unwrap().trim_start_matches('#')).unwrap(),
            None => value,
        }
    }

    /// The part of JSON Schema that the contract uses.
    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.deref(schema);
        let refuse = |rule: &str| Err(format!("{value} is against {rule} of {schema}"));
        if let Some(Value::Array(choices)) = schema.get("oneOf") {
            let fitting = choices.iter().filter(|choice| self.check(choice, value).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { refuse("oneOf") };
        }
        if schema.get("const").is_some_and(|wanted| wanted != value) {
            return refuse("const");
        }
        if let Some(Value::Array(allowed)) = schema.get("enum")
            && !allowed.contains(value)
        {
            return refuse("enum");
        }
        let is_of_type = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64(),
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            other => panic!("a type that this test does not know: {other}"),
        };
        match schema.get("type") {
            None => {}
            Some(Value::Array(names)) if names.iter().any(is_of_type) => {}
            Some(name @ Value::String(_)) if is_of_type(name) => {}
            Some(_) => return refuse("type"),
        }
        let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
        if let Some(number) = value.as_i64()
            && (bound("minimum").is_some_and(|low| number < low) || bound("maximum").is_some_and(|high| number > high))
        {
            return refuse("the range");
        }
        if let Value::Array(items) = value
            && let Some(schema) = schema.get("items")
        {
            items.iter().try_for_each(|item| self.check(schema, item))?;
        }
        if let (Value::Object(fields), Some(Value::Object(known))) = (value, schema.get("properties")) {
            let required = schema["required"].as_array().unwrap();
            if let Some(missing) = required.iter().find(|name| !fields.contains_key(name.as_str().unwrap())) {
                return refuse(&format!("required {missing}"));
            }
            for (name, field) in fields {
                let Some(schema) = known.get(name) else { return refuse(&format!("no property {name}")) };
                self.check(schema, field)?;
            }
        }
        Ok(())
    }
}

#[test]
fn the_contract_s_own_examples_are_as_it_promises() {
    let contract = Contract::read();
    for (name, example) in contract.0["components"]["examples"].as_object().unwrap() {
        let schema = match name.as_str() {
            "InvalidFields" | "PaymentTaken" | "Unavailable" => "Problem",
            name => name,
        };
        let schema = &contract.0["components"]["schemas"][schema];
        assert!(schema.is_object(), "{name}");
        contract.check(schema, &example["value"]).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

#[test]
fn a_buyer_s_order_and_a_site_s_are_told_apart() {
    let contract = Contract::read();
    let example = |name: &str| contract.0["components"]["examples"][name]["value"].clone();
    let schema = |name: &str| &contract.0["components"]["schemas"][name];
    assert!(contract.check(schema("BuyersOrder"), &example("Order")).is_err());
    assert!(contract.check(schema("Order"), &example("BuyersOrder")).is_err());
}
