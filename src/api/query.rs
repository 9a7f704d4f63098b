//! Query parameters. A misspelt one is refused instead of ignored: `?sinse=3` would wait for something else.

use crate::domain::tidy;
use crate::http::Problem;
use axum::extract::Query;
use axum::http::Uri;
use std::ops::RangeInclusive;

/// Faults that are listed at most.
pub(super) const FAULTS_MAX: usize = 20;

/// Longest name that is repeated to the sender, in bytes.
const NAME_BYTES_MAX: usize = 80;

/// What stands behind the question mark.
#[derive(Debug)]
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    faults: Vec<(String, String)>,
}

impl Parameters {
    /// Takes them as they are; nothing is checked yet.
    pub(super) fn of(uri: &Uri) -> Self {
        match Query::try_from_uri(uri) {
            Ok(Query(given)) => Self { given, faults: vec![] },
            Err(_) => Self { given: vec![], faults: vec![("query".to_owned(), "must be name=value&…".to_owned())] },
        }
    }

    /// The value of a parameter; the first one where there are several.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A whole number within a range, where the parameter is given.
    pub(super) fn number(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.get(name)?;
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = range.into_inner();
            let bound = if high == i64::MAX { format!("not below {low}") } else { format!("{low} to {high}") };
            self.fault(name, format!("must be a whole number, {bound}"));
        }
        number
    }

    /// Says what is wrong with one.
    pub(super) fn fault(&mut self, name: &str, detail: String) {
        self.faults.push((tidy(name, NAME_BYTES_MAX), detail));
    }

    /// 400 with everything that is wrong, also parameters that are not `known` or given twice.
    pub(super) fn check(mut self, known: &[&str]) -> Result<(), Problem> {
        let names: Vec<String> = self.given.iter().map(|(name, _)| name.clone()).collect();
        for (at, name) in names.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                self.fault(name, format!("is not a parameter of this request; there are {}", known.join(", ")));
            } else if names.iter().take(at).any(|earlier| earlier == name) {
                self.fault(name, "is given twice".to_owned());
            }
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        let problem = Problem::bad_request("parameters are not as they must be")
            .of_kind("invalid_parameters", "Invalid parameters");
        Err(self.faults.into_iter().take(FAULTS_MAX).fold(problem, |p, (name, detail)| p.with_field(name, detail)))
    }
}
