//! Query parameters, and the fields of forms. A misspelt name is refused and not ignored: `?sinse=3` would wait for
//! something else.

use super::problem::Problem;
use crate::domain::tidy;
use axum::Form;
use axum::body::Body;
use axum::extract::{FromRequest as _, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Uri};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// The most faults that are listed.
pub(crate) const FAULTS_MAX: usize = 20;

/// Longest name that is repeated to the sender, in bytes.
const NAME_BYTES_MAX: usize = 80;

/// The part of the address after the question mark.
#[derive(Debug)]
pub(crate) struct Parameters {
    given: Vec<(String, String)>,
    faults: Vec<(String, String)>,
}

impl Parameters {
    /// Takes them as they are, without a check.
    pub(crate) fn of(uri: &Uri) -> Self {
        match Query::try_from_uri(uri) {
            Ok(Query(given)) => Self { given, faults: vec![] },
            Err(_) => Self { given: vec![], faults: vec![("query".to_owned(), "must be name=value&…".to_owned())] },
        }
    }

    /// The fields of a form, as a browser sends it.
    pub(crate) async fn of_form(body: Bytes) -> Result<Self, Problem> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        match Form::from_request(request, &()).await {
            Ok(Form(given)) => Ok(Self { given, faults: vec![] }),
            Err(_) => Err(Problem::bad_request("the form must be name=value&…")),
        }
    }

    /// The value of a parameter. The first one counts if there are several.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be given more than once.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A whole number within a range, if the parameter is given.
    pub(crate) fn number(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.get(name)?;
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = range.into_inner();
            let bound = if high == i64::MAX { format!("not below {low}") } else { format!("{low} to {high}") };
            self.fault(name, format!("must be a whole number, {bound}"));
        }
        number
    }

    /// Adds what is wrong with a parameter.
    pub(crate) fn fault(&mut self, name: &str, detail: String) {
        self.faults.push((tidy(name, NAME_BYTES_MAX), detail));
    }

    /// Answers 400 with everything that is wrong, including parameters that are not `known` or are given twice.
    pub(crate) fn check(self, known: &[&str]) -> Result<(), Problem> {
        self.check_but(known, &[])
    }

    /// The same, for parameters of which some may be given more than once.
    pub(crate) fn check_but(mut self, known: &[&str], repeated: &[&str]) -> Result<(), Problem> {
        let names: Vec<String> = self.given.iter().map(|(name, _)| name.clone()).collect();
        for (at, name) in names.iter().enumerate() {
            if repeated.contains(&name.as_str()) {
                continue;
            } else if !known.contains(&name.as_str()) {
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
