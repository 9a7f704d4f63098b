//! Pages for people, of the shop and of the provider: HTML in which every value is escaped, and answers with the headers
//! that keep a page from doing more than it was made for.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use reqwest::Url;
use std::fmt::{self, Display, Write};
use std::net::IpAddr;

/// A piece of a page. Markup comes from literals of this program alone ([`html!`]); whatever else gets in is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Html(String);

/// Writes a piece of a page: `html!["<p>" (name) "</p>" [rest]]`. Literals are markup, what stands in round brackets is text
/// and escaped, what stands in square brackets is a piece that was written so before.
macro_rules! html {
    (@$out:ident) => {};
    (@$out:ident $markup:literal $($rest:tt)*) => {
        $out.markup($markup);
        $crate::sim::web::html!(@$out $($rest)*);
    };
    (@$out:ident ($text:expr) $($rest:tt)*) => {
        $out.text(&$text);
        $crate::sim::web::html!(@$out $($rest)*);
    };
    (@$out:ident [$piece:expr] $($rest:tt)*) => {
        $out.piece(&$piece);
        $crate::sim::web::html!(@$out $($rest)*);
    };
    ($($parts:tt)*) => {{
        let mut out = $crate::sim::web::Html::default();
        $crate::sim::web::html!(@out $($parts)*);
        out
    }};
}
pub(super) use html;

impl Html {
    /// For [`html!`].
    pub(super) fn markup(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// A text, also within an attribute in double quotes.
    pub(super) fn text(&mut self, text: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
    }

    /// More of the same.
    pub(super) fn piece(&mut self, piece: &Self) {
        self.0.push_str(&piece.0);
    }

    /// The pieces, one after the other.
    pub(super) fn all(pieces: impl IntoIterator<Item = Self>) -> Self {
        pieces.into_iter().fold(Self::default(), |mut all, piece| {
            all.piece(&piece);
            all
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
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

/// A whole page.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) status: StatusCode,
    pub(super) title: &'a str,
    /// Whose page it is, for the eye: `shop` or `provider`.
    pub(super) of: &'static str,
    /// More of the head.
    pub(super) head: Html,
    pub(super) body: Html,
    /// Another site that a form of this page leads to, in the end.
    pub(super) leads_to: Option<&'a Url>,
}

impl Page<'_> {
    /// The answer.
    pub(super) fn respond(self) -> Response {
        let Self { status, title, of, head, body, leads_to } = self;
        let page = html![
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
            "<meta name=\"color-scheme\" content=\"light dark\"><title>" (title) "</title>"
            "<link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/style.css\">" [head]
            "</head><body class=\"" (of) "\">" [body] "</body></html>\n"
        ];
        // A form's way leads on by redirects, and browsers hold those to this list, too.
        let elsewhere = leads_to.map(|url| format!(" {}", url.origin().ascii_serialization())).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
             base-uri 'none'; frame-ancestors 'none'; form-action 'self'{elsewhere}"
        );
        let mut response = (status, page.0).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // An origin is made of a scheme, a host and a port: there is nothing in it that a header could not hold.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        response
    }
}

/// Sends the browser on to another page, by GET.
pub(super) fn see(place: &str) -> Response {
    let Ok(place) = HeaderValue::try_from(place) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response()
}

/// A page of this very machine: the only ones that a demo's pages lead to.
pub(super) fn local(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_here.then_some(url)
}

/// What all pages share: how they look, and what brings them to life.
pub(super) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let serve = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, "no-cache")];
            (headers, text)
        })
    };
    Router::new()
        .route("/style.css", serve("text/css; charset=utf-8", include_str!("web/style.css")))
        .route("/live.js", serve("text/javascript; charset=utf-8", include_str!("web/live.js")))
        .route("/icon.svg", serve("image/svg+xml", include_str!("web/icon.svg")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_literal_is_escaped() {
        let nasty = r#"<script>"&'"#;
        let inner = html!["<b>" (nasty) "</b>"];
        let page = html!["<p title=\"" (nasty) "\">" [inner] (3) "</p>"];
        let escaped = "&lt;script&gt;&quot;&amp;&#39;";
        assert_eq!(page.as_str(), format!("<p title=\"{escaped}\"><b>{escaped}</b>3</p>"));
        assert_eq!(Html::all([inner.clone(), inner.clone()]).as_str(), format!("<b>{escaped}</b><b>{escaped}</b>"));
    }

    #[test]
    fn pages_lead_to_this_machine_alone() {
        for url in ["http://127.0.0.1:80/a?b=c", "http://localhost:8/", "http://[::1]:9/x"] {
            assert!(local(url).is_some(), "{url}");
        }
        for url in
            ["https://evil.example/", "javascript:alert(1)", "//evil.example", "/x", "http://127.0.0.1.evil.example/"]
        {
            assert!(local(url).is_none(), "{url}");
        }
    }

    #[test]
    fn a_page_may_do_what_it_was_made_for_and_no_more() {
        let shop = local("http://127.0.0.1:81/orders/1?a=b").unwrap();
        let head = Html::default();
        let page =
            Page { status: StatusCode::OK, title: "a<b", of: "shop", head, body: html!["x"], leads_to: Some(&shop) };
        let response = page.respond();
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(policy.ends_with("; form-action 'self' http://127.0.0.1:81"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
