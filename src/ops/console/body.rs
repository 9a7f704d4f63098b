//! A letter's body for people: JSON with its lines broken, text, or bytes.

use serde::de::IgnoredAny;
use std::fmt::Write as _;

/// Longest body that is shown, in bytes; all of it can be fetched.
const SHOWN_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are shown one by one.
const HEX_BYTES_MAX: usize = 2 * 1024;

/// Deepest indent; what lies deeper is not moved in further.
const DEPTH_MAX: usize = 24;

/// A body as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// `JSON`, `text`, `bytes`.
    pub(super) kind: &'static str,
    pub(super) text: String,
    /// Whether there is more than is shown.
    pub(super) is_cut: bool,
}

/// Makes a body readable. Nothing in it is changed but the blanks between JSON's parts: a number's digits stay what
/// they are.
pub(super) fn shown(body: &[u8]) -> Shown {
    let cut = |text: &str| {
        let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
        (text.get(..end).unwrap_or_default().to_owned(), end < text.len())
    };
    match std::str::from_utf8(body) {
        Ok(json) if is_json(json) => {
            let (text, is_cut) = cut(&broken_up(json));
            Shown { kind: "JSON", text, is_cut }
        }
        Ok(text) => {
            let (text, is_cut) = cut(text);
            Shown { kind: "text", text, is_cut }
        }
        Err(_) => {
            let part = body.get(..HEX_BYTES_MAX).unwrap_or(body);
            Shown { kind: "bytes", text: hex_dump(part), is_cut: part.len() < body.len() }
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// JSON with a line for each field and item.
fn broken_up(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let (mut in_text, mut is_escaped) = (false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(DEPTH_MAX)));
    };
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        if in_text {
            out.push(character);
            in_text = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
            continue;
        }
        match character {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                in_text = other == '"';
                out.push(other);
            }
        }
    }
    out
}

/// Sixteen bytes a line, with what of them can be read.
fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (at, line) in bytes.chunks(16).enumerate() {
        let hex: String = line.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x} ");
            hex
        });
        let readable: String = line
            .iter()
            .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
            .collect();
        let _ = writeln!(out, "{:06x}  {hex:<48} {readable}", at * 16);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_broken_up_and_nothing_else_is_done_to_it() {
        let given = r#"{"a":{"z":1e400,"b":[1, 2,{}],"c":[ ]},"text":"a \"{,:}\" \\","n":12345678901234567890.10}"#;
        let shown = shown(given.as_bytes());
        let lines = [
            "{",
            "  \"a\": {",
            "    \"z\": 1e400,",
            "    \"b\": [",
            "      1,",
            "      2,",
            "      {}",
            "    ],",
            "    \"c\": []",
            "  },",
            "  \"text\": \"a \\\"{,:}\\\" \\\\\",",
            "  \"n\": 12345678901234567890.10",
            "}",
        ];
        assert_eq!((shown.kind, shown.is_cut), ("JSON", false));
        assert_eq!(shown.text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_is_no_json_is_text_or_bytes_and_never_too_long() {
        assert_eq!(shown(b"hello <b>").text, "hello <b>");
        assert_eq!(shown(b"\xff\x00Az").text, "000000  ff 00 41 7a                                      ..Az\n");
        let long = "ä".repeat(SHOWN_BYTES_MAX);
        let cut = shown(long.as_bytes());
        assert!(cut.is_cut && cut.text.len() <= SHOWN_BYTES_MAX && cut.kind == "text");
        assert!(shown(&[0xff; HEX_BYTES_MAX + 1]).is_cut);
        assert_eq!(shown(b"").kind, "text");
        // Deeper than any parser goes: it is text then, and the stack is as deep as before.
        let deep = "[".repeat(100_000);
        assert_eq!(shown(deep.as_bytes()).kind, "text");
    }
}
