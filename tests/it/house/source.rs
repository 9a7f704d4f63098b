//! Reads Rust source just well enough to find its paths.

use super::IMPURE_NAMES;

/// A path in the source.
pub struct Found {
    pub line: usize,
    /// The path below the crate's root, or the path as it is written.
    pub path: Vec<String>,
    pub is_from_root: bool,
    pub is_call: bool,
    pub is_macro: bool,
    pub in_tests: bool,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    /// The token `::`.
    Step,
    Open(char),
    Close,
    /// Any other character, or a literal.
    Other(char),
}

/// The tokens of a file, each with its line. Comments and strings are left out, because no rule applies to them.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut source = Source { rest: text, line: 1 };
    let mut tokens = vec![];
    while let Some(next) = source.rest.chars().next() {
        let line = source.line;
        let token = match next {
            _ if source.rest.starts_with("//") => {
                source.skip_to(source.rest.find('\n'), 0);
                continue;
            }
            _ if source.rest.starts_with("/*") => {
                source.skip_block_comment();
                continue;
            }
            _ if source.rest.starts_with("::") => {
                source.skip(2);
                Token::Step
            }
            '"' => source.skip_text(),
            '\'' => source.skip_character_or_lifetime(),
            _ if next.is_alphabetic() || next == '_' => source.word_or_text(),
            _ => {
                source.skip(next.len_utf8());
                match next {
                    _ if next.is_whitespace() => continue,
                    '{' | '(' | '[' => Token::Open(next),
                    '}' | ')' | ']' => Token::Close,
                    _ => Token::Other(next),
                }
            }
        };
        tokens.push((token, line));
    }
    tokens
}

struct Source<'a> {
    rest: &'a str,
    line: usize,
}

impl Source<'_> {
    fn skip(&mut self, bytes: usize) {
        let (done, rest) = self.rest.split_at(bytes);
        self.line += done.matches('\n').count();
        self.rest = rest;
    }

    /// Skips to the position that was found, and `more` bytes beyond it. Skips everything if nothing was found.
    fn skip_to(&mut self, found: Option<usize>, more: usize) {
        self.skip(found.map_or(self.rest.len(), |at| at + more));
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_u32;
        loop {
            let (bytes, step) = match self.rest.get(..2) {
                Some("/*") => (2, 1),
                Some("*/") => (2, -1),
                _ => (self.rest.chars().next().map_or(0, char::len_utf8), 0),
            };
            self.skip(bytes);
            depth = depth.saturating_add_signed(step);
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// Skips a string, from the opening quotation mark to the closing one.
    fn skip_text(&mut self) -> Token {
        let mut is_escaped = true; // the opening one is not the end
        let end = self.rest.char_indices().find(|(_, c)| {
            let is_end = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            is_end
        });
        self.skip_to(end.map(|(at, _)| at), 1);
        Token::Other('"')
    }

    fn skip_character_or_lifetime(&mut self) -> Token {
        let mut after = self.rest.chars().skip(1);
        match (after.next(), after.next()) {
            // The escaped character may be a quotation mark itself.
            (Some('\\'), Some(escaped)) => {
                self.skip(2 + escaped.len_utf8());
                self.skip_to(self.rest.find('\''), 1);
            }
            (Some(character), Some('\'')) => self.skip(2 + character.len_utf8()),
            // This is a lifetime. Its name follows, and no rule applies to it.
            _ => self.skip(1),
        }
        Token::Other('\'')
    }

    /// Reads a word, or the string that the word is a prefix of.
    fn word_or_text(&mut self) -> Token {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default().to_owned();
        self.skip(word.len());
        let hashes = self.rest.len() - self.rest.trim_start_matches('#').len();
        let is_text = self.rest.get(hashes..).is_some_and(|rest| rest.starts_with('"'));
        match word.as_str() {
            "r" | "br" | "cr" if is_text => {
                self.skip(hashes + 1);
                self.skip_to(self.rest.find(&format!("\"{}", "#".repeat(hashes))), hashes + 1);
                Token::Other('"')
            }
            "b" | "c" if is_text && hashes == 0 => self.skip_text(),
            _ => Token::Word(word),
        }
    }
}

/// Every path of a file: in `use`, in calls, types and macros.
pub fn paths_in(file: &str, text: &str) -> Vec<Found> {
    let all = tokens(text);
    let word = |at: usize| match all.get(at) {
        Some((Token::Word(word), _)) => Some(word.as_str()),
        Some(_) | None => None,
    };
    let is = |at: usize, token: &Token| all.get(at).is_some_and(|(found, _)| found == token);

    let mut found = vec![];
    // The open brackets. A bracket of a module has its name.
    let mut open: Vec<Option<&str>> = vec![];
    let mut at = 0;
    while let Some((token, line)) = all.get(at) {
        match token {
            Token::Open(_) => {
                open.push(at.checked_sub(2).filter(|two| word(*two) == Some("mod")).and(word(at.wrapping_sub(1))))
            }
            Token::Close => drop(open.pop()),
            Token::Word(_) => {
                let before = at.checked_sub(1).and_then(|before| all.get(before)).map(|(token, _)| token);
                let is_use = matches!(before, Some(Token::Word(word)) if word == "use");
                let is_defined = matches!(before, Some(Token::Word(word)) if word == "fn" || word == "mod");
                let mut ends = vec![];
                let after = walk(&all, at, &[], &mut ends);
                let modules = open.iter().flatten().count();
                let in_tests = file.ends_with("tests.rs")
                    || file.contains("/tests/")
                    || open.iter().flatten().any(|m| *m == "tests");
                let (is_call, is_macro) = (is(after, &Token::Open('(')), is(after, &Token::Other('!')));
                let is_said = |path: &[String]| {
                    path.len() > 1 || is_use || is_call || is_macro || IMPURE_NAMES.contains(&path[0].as_str())
                };
                // The name of a method is not a path.
                if before != Some(&Token::Other('.')) && !is_defined {
                    for path in ends.into_iter().filter(|path| is_said(path)) {
                        let (path, is_from_root) = from_root(file, modules, path);
                        found.push(Found { line: *line, path, is_from_root, is_call, is_macro, in_tests });
                    }
                }
                at = after;
                continue;
            }
            Token::Step | Token::Other(_) => {}
        }
        at += 1;
    }
    found
}

/// Follows a path from its word at `at`, also into the braces of a `use`. Returns the position after the path.
fn walk(all: &[(Token, usize)], mut at: usize, prefix: &[String], ends: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match all.get(at) {
            Some((Token::Word(word), _)) => {
                // `a::{self}` means `a`.
                if word != "self" || path.is_empty() {
                    path.push(word.clone());
                }
                at += 1;
            }
            Some((Token::Open('{'), _)) if !path.is_empty() => {
                at += 1;
                loop {
                    match all.get(at) {
                        Some((Token::Close, _)) | None => return at + 1,
                        Some((Token::Word(_), _)) => at = walk(all, at, &path, ends),
                        Some((Token::Step | Token::Open(_) | Token::Other(_), _)) => at += 1,
                    }
                }
            }
            Some(_) | None => {}
        }
        match all.get(at) {
            Some((Token::Step, _)) if matches!(all.get(at + 1), Some((Token::Word(_) | Token::Open('{'), _))) => {
                at += 1
            }
            Some(_) | None => {
                ends.push(path);
                return at;
            }
        }
    }
}

/// Returns the path below the crate's root if it begins there: by name, or with more `super` than the room has levels.
fn from_root(file: &str, inline_modules: usize, mut path: Vec<String>) -> (Vec<String>, bool) {
    // Outside of `src`, `grantonce` is another crate.
    let is_own = |name: &String| name == "crate" || name == "grantonce" && file.starts_with("src/");
    if path.first().is_some_and(is_own) {
        path.remove(0);
        return (path, true);
    }
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    let below = file.strip_prefix("src/").unwrap_or(file);
    let storeys = below.split('/').filter(|part| !matches!(*part, "mod.rs" | "lib.rs" | "main.rs")).count();
    let is_from_root = supers > 0 && storeys + inline_modules <= supers;
    if is_from_root {
        path.drain(..supers);
    }
    (path, is_from_root)
}
