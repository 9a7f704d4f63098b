//! Pages for people: HTML in which every value is escaped, and answers with headers that restrict a page to its
//! purpose.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::fmt::{self, Display, Write};

/// A part of a page. Markup comes only from literals of this program ([`html!`]). Everything else is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Html(String);

/// Writes a part of a page: `html!["<p>" (name) "</p>" [rest]]`. Literals are markup. Round brackets hold text: it is
/// escaped, and invisible characters are made visible. Curly brackets hold the value of a field in double quotes: it is
/// only escaped, so that it comes back unchanged. Square brackets hold another part of a page.
macro_rules! html {
    () => {
        $crate::http::Html::default()
    };
    (@$out:ident) => {};
    (@$out:ident $markup:literal $($rest:tt)*) => {
        $out.markup($markup);
        $crate::http::html!(@$out $($rest)*);
    };
    (@$out:ident ($text:expr) $($rest:tt)*) => {
        $out.text(&$text);
        $crate::http::html!(@$out $($rest)*);
    };
    (@$out:ident {$value:expr} $($rest:tt)*) => {
        $out.value(&$value);
        $crate::http::html!(@$out $($rest)*);
    };
    (@$out:ident [$piece:expr] $($rest:tt)*) => {
        $out.piece(&$piece);
        $crate::http::html!(@$out $($rest)*);
    };
    ($($parts:tt)*) => {{
        let mut out = $crate::http::Html::default();
        $crate::http::html!(@out $($parts)*);
        out
    }};
}
pub(crate) use html;

impl Html {
    /// Used by [`html!`] for literals.
    pub(crate) fn markup(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Adds a text, escaped.
    pub(crate) fn text(&mut self, text: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = write!(Escaped { out: &mut self.0, is_for_eyes: true }, "{text}");
    }

    /// Adds the value of an attribute, in double quotes.
    pub(crate) fn value(&mut self, text: &dyn Display) {
        let _ = write!(Escaped { out: &mut self.0, is_for_eyes: false }, "{text}");
    }

    /// Adds another part of a page.
    pub(crate) fn piece(&mut self, piece: &Self) {
        self.0.push_str(&piece.0);
    }

    /// Joins parts in their order.
    pub(crate) fn all(pieces: impl IntoIterator<Item = Self>) -> Self {
        pieces.into_iter().fold(Self::default(), |mut all, piece| {
            all.piece(&piece);
            all
        })
    }

    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The answer with a page. The page may load only what `policy` (of CSP) allows. No cache keeps it, and it does not
    /// tell other sites where it was.
    pub(crate) fn respond(self, status: StatusCode, policy: &str, referrer_policy: &'static str) -> Response {
        let mut response = (status, self.0).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static(referrer_policy));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        response
    }
}

struct Escaped<'a> {
    out: &'a mut String,
    /// Whether people read it. Then invisible characters, and those that change the direction of writing, are shown by
    /// their numbers.
    is_for_eyes: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                other if self.is_for_eyes && is_unseen(other) => write!(self.out, "[U+{:04X}]", u32::from(other))?,
                other => self.out.push(other),
            }
        }
        Ok(())
    }
}

/// Whether a character is invisible: a control character, one that changes the direction of writing, one without a
/// width, or a tag.
fn is_unseen(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        other => other.is_control(),
    }
}

/// Sends the browser to another page, by GET.
pub(crate) fn see(place: &str) -> Response {
    let Ok(place) = HeaderValue::try_from(place) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response()
}

/// A file that pages share, such as a style sheet or a script. The browser asks for it each time, because the next
/// version of this program may have another one.
pub(crate) fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_literal_is_escaped() {
        let nasty = r#"<script>"&'"#;
        let inner = html!["<b>" (nasty) "</b>"];
        let page = html!["<p title=\"" (nasty) "\" id=\"" {nasty} "\">" [inner] (3) "</p>"];
        let escaped = "&lt;script&gt;&quot;&amp;&#39;";
        assert_eq!(page.as_str(), format!("<p title=\"{escaped}\" id=\"{escaped}\"><b>{escaped}</b>3</p>"));
        assert_eq!(Html::all([inner.clone(), inner.clone()]).as_str(), format!("<b>{escaped}</b><b>{escaped}</b>"));
    }

    #[test]
    fn what_cannot_be_seen_is_shown_and_a_field_keeps_it() {
        for (unseen, shown) in [
            ("pay\u{202e}me", "pay[U+202E]me"),
            ("\u{2066}x\u{2069}", "[U+2066]x[U+2069]"),
            ("a\0b\u{1b}[31m", "a[U+0000]b[U+001B][31m"),
            ("a\u{200b}b\u{feff}", "a[U+200B]b[U+FEFF]"),
            ("line\nand\ttab, ä 漢 🙂", "line\nand\ttab, ä 漢 🙂"),
        ] {
            assert_eq!(html![(unseen)].as_str(), shown);
            assert_eq!(html![{ unseen }].as_str(), unseen);
        }
    }

    #[test]
    fn a_page_may_do_what_its_policy_says() {
        let response = html!["x"].respond(StatusCode::OK, "default-src 'none'", "no-referrer");
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], "default-src 'none'");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
