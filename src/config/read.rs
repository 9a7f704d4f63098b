//! The environment, and reading it without stopping at the first fault.

use super::files::{FollowedFile, FollowedFiles, is_regular_file, read_secret_file};
use super::names::unknown;
use super::parse::Demand;
use super::variables::{DefaultValue, Variable};
use crate::code::Code;
use crate::followed::Followed;
use crate::role::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How much of a wrong value is shown, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// Environment variables, the process's own or others. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    not_utf8: BTreeSet<String>,
}

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.values.insert(name, value)),
                Err(_) => drop(environment.not_utf8.insert(name)),
            }
        }
        environment
    }

    /// The same with one variable set.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    /// The same with one variable set unless it (or its `_FILE` form) is set already.
    #[must_use]
    pub fn with_default(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if self.get(&name).is_none() && self.get(&format!("{name}_FILE")).is_none() {
            self.values.insert(name, value.into());
        }
        self
    }

    /// The same with one variable whose value is no text.
    #[cfg(test)]
    pub(super) fn with_not_utf8(mut self, name: &str) -> Self {
        self.values.remove(name);
        self.not_utf8.insert(name.to_owned());
        self
    }

    /// A variable's value. An empty one counts as not set: that is how compose files leave one out.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.values.keys().chain(&self.not_utf8)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let values = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, not_utf8: BTreeSet::new() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable.
    pub name: String,
    /// What is wrong, and what would be right. Never a secret's value.
    pub problem: String,
    /// The code that leads to `docs/errors.md`.
    pub code: Code,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.problem)
    }
}

/// All that is wrong with the configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults {
    role: Role,
    faults: Vec<Fault>,
}

impl ConfigFaults {
    /// The faults, in the order of the variables' table; unknown names come last.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The code of the first fault.
    pub fn code(&self) -> Code {
        self.faults.first().map_or(Code::ConfigInvalid, |fault| fault.code)
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, role) = (self.faults.len(), self.role);
        let faults = if count == 1 { "fault" } else { "faults" };
        write!(f, "{count} {faults} in the configuration of {role} (see grantonce --help-config):")?;
        for fault in &self.faults {
            write!(f, "\n  {fault} (code: {})", fault.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}

/// Reads variables for one role, and keeps the faults.
pub(super) struct Reader<'e> {
    role: Role,
    environment: &'e Environment,
    faults: Vec<Fault>,
    files: Vec<FollowedFile>,
}

/// A variable's text, the name under which it was found, and its file's path where it came from one.
struct Found {
    name: String,
    text: String,
    path: Option<String>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(role: Role, environment: &'e Environment) -> Self {
        Self { role, environment, faults: Vec::new(), files: Vec::new() }
    }

    /// The variables that clients of Postgres have in common. One that is not UTF-8 is told by a character that no value
    /// may have.
    pub(super) fn libpq_variables(&self) -> BTreeMap<String, String> {
        let names = self.environment.names().filter(|name| name.starts_with("PG"));
        let value = |name: &String| match self.environment.not_utf8.contains(name) {
            true => Some(char::REPLACEMENT_CHARACTER.to_string()),
            false => self.environment.get(name).map(str::to_owned),
        };
        names.filter_map(|name| Some((name.clone(), value(name)?))).collect()
    }

    /// Notes a fault; `variable` gives the example.
    pub(super) fn fault(&mut self, variable: &Variable, problem: impl fmt::Display) {
        self.fault_named(variable.name, variable, problem);
    }

    fn fault_named(&mut self, name: &str, variable: &Variable, problem: impl fmt::Display) {
        let problem = format!("{problem}; for example {}={}", variable.name, variable.example);
        self.faults.push(Fault { name: name.to_owned(), problem, code: Code::ConfigInvalid });
    }

    /// Notes that a variable is not set, although the role needs it.
    pub(super) fn missing(&mut self, variable: &Variable, problem: impl fmt::Display) {
        self.fault(variable, problem);
        if let Some(fault) = self.faults.last_mut() {
            fault.code = Code::ConfigMissing;
        }
    }

    /// A variable's value, or its default's. Nothing where it is not set and has no default, and where it is at
    /// fault. Whatever is set is checked in every role, so that one shared file of variables is checked whole.
    pub(super) fn read<T>(&mut self, variable: &Variable, parse: impl Fn(&str) -> Result<T, Demand>) -> Option<T> {
        let found = self.found(variable)?;
        self.value(variable, &found, parse)
    }

    /// As [`Reader::read`], for a secret: where it came from a file, the file is followed.
    pub(super) fn follow<T: Send + Sync + 'static>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<T, Demand> + Send + Sync + 'static,
    ) -> Option<Followed<T>> {
        let found = self.found(variable)?;
        let value = Followed::new(self.value(variable, &found, &parse)?);
        if let Some(path) = found.path.filter(|path| is_regular_file(path)) {
            let followed = value.clone();
            let take = Box::new(move |text: &str| followed.replace(parse(text)?));
            self.files.push(FollowedFile::new(variable.name, path, &found.text, take));
        }
        Some(value)
    }

    /// As [`Reader::follow`], for a list: not set is empty.
    pub(super) fn follow_list<T: Send + Sync + 'static>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<Vec<T>, Demand> + Send + Sync + 'static,
    ) -> Followed<Vec<T>> {
        self.follow(variable, parse).unwrap_or_else(|| Followed::new(vec![]))
    }

    /// A variable's text, or its default's.
    fn found(&mut self, variable: &Variable) -> Option<Found> {
        let found = self.find(variable).ok()?;
        if found.is_none() && variable.required_by.contains(&self.role) {
            self.missing(variable, format!("is required by {} and not set", self.role));
        }
        let of_default = match variable.default {
            DefaultValue::Text(text) => {
                Some(Found { name: variable.name.to_owned(), text: text.to_owned(), path: None })
            }
            DefaultValue::Unset | DefaultValue::Derived(_) => None,
        };
        found.or(of_default)
    }

    fn value<T>(&mut self, variable: &Variable, found: &Found, parse: impl Fn(&str) -> Result<T, Demand>) -> Option<T> {
        let demand = match parse(&found.text) {
            Ok(value) => return Some(value),
            Err(demand) => demand,
        };
        // An address may hold a password, whatever it was put under.
        let problem = if variable.is_secret || found.text.contains('@') {
            demand
        } else {
            let shown: String = found.text.chars().take(SHOWN_CHARS_MAX).collect();
            format!("is {shown:?}: it {demand}")
        };
        self.fault_named(&found.name, variable, problem);
        None
    }

    /// The files that the secrets came from, to be followed.
    pub(super) fn files(&mut self) -> FollowedFiles {
        FollowedFiles::new(std::mem::take(&mut self.files))
    }

    /// Whether a variable is set, in either form, be it rightly or wrongly.
    pub(super) fn is_set(&self, variable: &Variable) -> bool {
        let file = format!("{}_FILE", variable.name);
        self.environment.get(variable.name).is_some() || self.environment.get(&file).is_some()
    }

    /// As [`Reader::read`], for a list: not set is empty.
    pub(super) fn read_list<T>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<Vec<T>, Demand>,
    ) -> Vec<T> {
        self.read(variable, parse).unwrap_or_default()
    }

    fn find(&mut self, variable: &Variable) -> Result<Option<Found>, ()> {
        let name = variable.name;
        let file_name = format!("{name}_FILE");
        for set in [name, file_name.as_str()] {
            if self.environment.not_utf8.contains(set) {
                self.fault_named(set, variable, "is not UTF-8");
                return Err(());
            }
        }
        let direct =
            self.environment.get(name).map(|text| Found { name: name.to_owned(), text: text.to_owned(), path: None });
        let Some(path) = self.environment.get(&file_name).filter(|_| variable.is_secret) else {
            return Ok(direct);
        };
        if direct.is_some() {
            self.fault(variable, format!("and {file_name} are both set; keep one"));
            return Err(());
        }
        if !variable.roles.contains(&self.role) {
            // Another role's file need not be there.
            return Ok(None);
        }
        match read_secret_file(path) {
            Ok(text) => Ok(Some(Found { name: file_name, text, path: Some(path.to_owned()) })),
            Err(problem) => {
                // Not the path: it may be the secret itself, put under the wrong name.
                let problem = format!("names a file that {problem}; for example {file_name}=/run/secrets/file");
                self.faults.push(Fault { name: file_name, problem, code: Code::ConfigSecretFile });
                Err(())
            }
        }
    }

    /// The faults, if there are any, together with names of ours that nobody knows.
    pub(super) fn finish(mut self) -> Option<ConfigFaults> {
        for name in self.environment.names() {
            if let Some(problem) = unknown(name, self.environment.get(name)) {
                self.faults.push(Fault { name: name.clone(), problem, code: Code::ConfigUnknown });
            }
        }
        (!self.faults.is_empty()).then_some(ConfigFaults { role: self.role, faults: self.faults })
    }

    /// For a role whose values are not all there although nothing is at fault: a mistake in the table.
    pub(super) fn finish_incomplete(mut self) -> ConfigFaults {
        if self.faults.is_empty() {
            let problem = format!("is not complete for {}: a mistake in the table of variables", self.role);
            self.faults.push(Fault { name: "the configuration".to_owned(), problem, code: Code::ConfigInvalid });
        }
        let role = self.role;
        self.finish().unwrap_or(ConfigFaults { role, faults: Vec::new() })
    }
}
