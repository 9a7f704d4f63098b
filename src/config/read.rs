//! The environment, and reading it without stopping at the first fault.

use super::Role;
use super::parse::Demand;
use super::variables::{DefaultValue, PREFIX, VARIABLES, Variable};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read as _;

/// Largest file of a secret, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// How much of a wrong value is shown, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// Furthest name that is still taken for a slip of the pen, in edits.
const TYPO_EDITS_MAX: usize = 3;

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
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, role) = (self.faults.len(), self.role);
        let faults = if count == 1 { "fault" } else { "faults" };
        write!(f, "{count} {faults} in the configuration of {role} (see grantonce --help-config):")?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
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
}

/// A variable's text and the name under which it was found.
struct Found {
    name: String,
    text: String,
}

impl<'e> Reader<'e> {
    pub(super) fn new(role: Role, environment: &'e Environment) -> Self {
        Self { role, environment, faults: Vec::new() }
    }

    /// What is read.
    pub(super) fn environment(&self) -> &'e Environment {
        self.environment
    }

    /// Notes a fault; `variable` gives the example.
    pub(super) fn fault(&mut self, variable: &Variable, problem: impl fmt::Display) {
        self.fault_named(variable.name, variable, problem);
    }

    fn fault_named(&mut self, name: &str, variable: &Variable, problem: impl fmt::Display) {
        let problem = format!("{problem}; for example {}={}", variable.name, variable.example);
        self.faults.push(Fault { name: name.to_owned(), problem });
    }

    /// A variable's value, or its default's. Nothing where it is not set and has no default, and where it is at
    /// fault. Whatever is set is checked in every role, so that one shared file of variables is checked whole.
    pub(super) fn read<T>(&mut self, variable: &Variable, parse: impl Fn(&str) -> Result<T, Demand>) -> Option<T> {
        let found = match self.find(variable) {
            Ok(Some(found)) => found,
            Ok(None) => {
                if variable.required_by.contains(&self.role) {
                    self.fault(variable, format!("is required by {} and not set", self.role));
                }
                let DefaultValue::Text(text) = variable.default else { return None };
                Found { name: variable.name.to_owned(), text: text.to_owned() }
            }
            Err(()) => return None,
        };
        match parse(&found.text) {
            Ok(value) => Some(value),
            Err(demand) if variable.is_secret => {
                self.fault_named(&found.name, variable, demand);
                None
            }
            Err(demand) => {
                let shown: String = found.text.chars().take(SHOWN_CHARS_MAX).collect();
                self.fault_named(&found.name, variable, format!("is {shown:?}: it {demand}"));
                None
            }
        }
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
        if self.environment.not_utf8.contains(name) {
            self.fault(variable, "is not UTF-8");
            return Err(());
        }
        let direct = self.environment.get(name).map(|text| Found { name: name.to_owned(), text: text.to_owned() });
        let file_name = format!("{name}_FILE");
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
            Ok(text) => Ok(Some(Found { name: file_name, text })),
            Err(problem) => {
                // Not the path: it may be the secret itself, put under the wrong name.
                let problem = format!("names a file that {problem}; for example {file_name}=/run/secrets/file");
                self.faults.push(Fault { name: file_name, problem });
                Err(())
            }
        }
    }

    /// The faults, if there are any, together with names of ours that nobody knows.
    pub(super) fn finish(mut self) -> Option<ConfigFaults> {
        for name in self.environment.names() {
            if let Some(problem) = unknown(name, self.environment.get(name)) {
                self.faults.push(Fault { name: name.clone(), problem });
            }
        }
        (!self.faults.is_empty()).then_some(ConfigFaults { role: self.role, faults: self.faults })
    }

    /// For a role whose values are not all there although nothing is at fault: a mistake in the table.
    pub(super) fn finish_incomplete(mut self) -> ConfigFaults {
        if self.faults.is_empty() {
            let problem = format!("is not complete for {}: a mistake in the table of variables", self.role);
            self.faults.push(Fault { name: "the configuration".to_owned(), problem });
        }
        let role = self.role;
        self.finish().unwrap_or(ConfigFaults { role, faults: Vec::new() })
    }
}

fn read_secret_file(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(SECRET_FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!("cannot be read ({error})")),
        Ok(bytes) if bytes as u64 > SECRET_FILE_BYTES_MAX => Err(format!("is above {SECRET_FILE_BYTES_MAX} bytes")),
        Ok(_) => {
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
        }
    }
}

/// What is wrong with a name of ours that is not in the table.
fn unknown(name: &str, value: Option<&str>) -> Option<String> {
    let own = name.strip_prefix(PREFIX)?;
    let secret = name.strip_suffix("_FILE");
    for variable in VARIABLES {
        if variable.name == name {
            return None;
        }
        if secret == Some(variable.name) {
            if variable.is_secret {
                return None;
            }
            return Some(format!("is unknown: only secrets come as files; set {}", variable.name));
        }
    }
    if is_service_link(own, value) {
        return None;
    }
    let nearest = VARIABLES
        .iter()
        .flat_map(|variable| {
            let file = variable.is_secret.then(|| format!("{}_FILE", variable.name));
            std::iter::once(variable.name.to_owned()).chain(file)
        })
        .map(|known| (edits(known.strip_prefix(PREFIX).unwrap_or(&known), own), known))
        .min()
        .filter(|(edits, _)| *edits <= TYPO_EDITS_MAX && *edits < own.len().div_ceil(2));
    Some(match nearest {
        Some((_, known)) => format!("is unknown; did you mean {known}?"),
        None => "is unknown; grantonce --help-config lists what there is".to_owned(),
    })
}

/// Whether Kubernetes made this up for a service whose name begins with ours: `GRANTONCE_API_SERVICE_HOST`,
/// `…_SERVICE_PORT[_NAME]`, `…_PORT=tcp://…`, `…_PORT_8081_TCP[_ADDR]`. A `…_PORT` that holds a number is no such
/// thing but someone's mistake.
fn is_service_link(own: &str, value: Option<&str>) -> bool {
    // A service called just as our prefix has nothing before it.
    let own = format!("_{own}");
    if own.ends_with("_SERVICE_HOST") || own.ends_with("_SERVICE_PORT") || own.contains("_SERVICE_PORT_") {
        return true;
    }
    if own.ends_with("_PORT") {
        return value.is_none_or(|value| value.contains("://"));
    }
    own.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
        let mut words = rest.split('_');
        let number = words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
        number && words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"))
    })
}

/// Levenshtein's distance: how many letters must be put in, left out or changed.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            let change = diagonal + usize::from(from != *to);
            diagonal = *above;
            left = change.min(left + 1).min(*above + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
