//! The one rule for short texts that come from outside and are kept: ids, reasons.

/// Why a text was refused. The message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than the bound.
    #[error("is {bytes} bytes long; at most {max_bytes} are allowed")]
    TooLong {
        /// Length of what was given.
        bytes: usize,
        /// The bound in bytes.
        max_bytes: usize,
    },
    /// A control character. Postgres refuses NUL, and a line break would forge log lines.
    #[error("has a character that is not allowed at byte {at}: {allowed}")]
    BadCharacter {
        /// Byte offset of the first offending character.
        at: usize,
        /// The characters that are allowed.
        allowed: &'static str,
    },
    /// The text does not have the required form.
    #[error("must be {0}")]
    BadForm(&'static str),
}

/// Checks an identifier: 1 to `max_bytes` bytes, no control characters, no blanks at either end.
pub(super) fn check_id(text: &str, max_bytes: usize) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > max_bytes {
        return Err(TextError::TooLong { bytes: text.len(), max_bytes });
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(TextError::BadCharacter { at, allowed: "printable characters only" });
    }
    if text.trim().len() != text.len() {
        return Err(TextError::BadForm("free of blanks at both ends"));
    }
    Ok(())
}

/// Makes a free text (a provider's failure reason, a dead letter's detail) safe to keep: control characters become blanks, and it ends
/// at a character boundary within `max_bytes`.
pub fn tidy(text: &str, max_bytes: usize) -> String {
    let mut tidy = String::with_capacity(text.len().min(max_bytes));
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if tidy.len() + c.len_utf8() > max_bytes {
            break;
        }
        tidy.push(c);
    }
    tidy
}

/// A number with its noun: `1 time`, `3 times`.
pub fn counted(count: impl Into<i64>, noun: &str) -> String {
    match count.into() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
