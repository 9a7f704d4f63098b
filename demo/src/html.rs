//! Pieces of HTML in which every value is escaped, and answers with the headers that a page needs.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::fmt::{self, Display, Write};

/// A piece of a page. Its markup comes from literals in [`html!`]. Everything else is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Html(String);

/// Writes a piece of a page: `html!["<p>" (name) "</p>" [rest]]`. Literals are markup. A value in round brackets is text and
/// is escaped. A value in square brackets is a piece that was written before.
macro_rules! html {
    () => {
        $crate::html::Html::default()
    };
    (@$out:ident) => {};
    (@$out:ident $markup:literal $($rest:tt)*) => {
        $out.markup($markup);
        $crate::html::html!(@$out $($rest)*);
    };
    (@$out:ident ($text:expr) $($rest:tt)*) => {
        $out.text(&$text);
        $crate::html::html!(@$out $($rest)*);
    };
    (@$out:ident [$piece:expr] $($rest:tt)*) => {
        $out.piece(&$piece);
        $crate::html::html!(@$out $($rest)*);
    };
    ($($parts:tt)*) => {{
        let mut out = $crate::html::Html::default();
        $crate::html::html!(@out $($parts)*);
        out
    }};
}
pub(crate) use html;

impl Html {
    /// Adds markup. For [`html!`] only.
    pub(crate) fn markup(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Adds a text, escaped.
    pub(crate) fn text(&mut self, text: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
    }

    /// Adds a piece that was written before.
    pub(crate) fn piece(&mut self, piece: &Self) {
        self.0.push_str(&piece.0);
    }

    /// Joins the pieces.
    pub(crate) fn all(pieces: impl IntoIterator<Item = Self>) -> Self {
        pieces.into_iter().fold(Self::default(), |mut all, piece| {
            all.piece(&piece);
            all
        })
    }

    /// The text of the piece.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The answer. `policy` is the page's Content-Security-Policy.
    pub(crate) fn respond(self, status: StatusCode, policy: &str) -> Response {
        let mut response = (status, self.0).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        response
    }
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

/// Sends the browser to another page with GET.
pub(crate) fn see(place: &str) -> Response {
    let Ok(place) = HeaderValue::try_from(place) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response()
}

/// A file that pages share. Browsers ask for it each time, because the next version of this program may bring another.
pub(crate) fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_escaped() {
        let nasty = r#"<script>"&'"#;
        let inner = html!["<b>" (nasty) "</b>"];
        let page = html!["<p title=\"" (nasty) "\">" [inner] (3) "</p>"];
        let escaped = "&lt;script&gt;&quot;&amp;&#39;";
        assert_eq!(page.as_str(), format!("<p title=\"{escaped}\"><b>{escaped}</b>3</p>"));
        assert_eq!(Html::all([inner.clone(), inner.clone()]).as_str(), format!("<b>{escaped}</b><b>{escaped}</b>"));
    }
}
