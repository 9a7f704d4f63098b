//! What a check of a server found: faults, each with the command that mends it, and notes.

use crate::code::Code;
use serde::Serialize;
use std::fmt;

/// Something that is wrong at a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The code that leads to `docs/errors.md`.
    pub code: Code,
    /// What is wrong, in one sentence.
    pub what: String,
    /// The command or setting that mends it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} (code: {})", self.what, self.remedy, self.code)
    }
}

/// What a check found at one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What must be mended.
    pub faults: Vec<Fault>,
    /// What was compared, what could not be seen, and what an operator should look at.
    pub notes: Vec<String>,
}

impl Findings {
    /// Adds a fault with its remedy.
    pub fn fault(&mut self, code: Code, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault { code, what: what.into(), remedy: remedy.into() });
    }

    /// Adds a note for the operator.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds the findings of another check.
    pub fn extend(&mut self, other: Self) {
        self.faults.extend(other.faults);
        self.notes.extend(other.notes);
    }
}
