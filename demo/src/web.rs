//! Pages for people, of the shop and of the provider.

use crate::html::asset;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use reqwest::Url;
use std::net::IpAddr;

pub(crate) use crate::html::{Html, html, see};

/// A whole page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) status: StatusCode,
    pub(crate) title: &'a str,
    /// Whose page it is, for the eye: `shop` or `provider`.
    pub(crate) of: &'static str,
    /// More of the head.
    pub(crate) head: Html,
    pub(crate) body: Html,
    /// Another site that a form of this page leads to, in the end.
    pub(crate) leads_to: Option<&'a Url>,
}

impl Page<'_> {
    /// The answer.
    pub(crate) fn respond(self) -> Response {
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
        // An origin is made of a scheme, a host and a port: there is nothing in it that a header could not hold.
        page.respond(status, &policy)
    }
}

/// A page of this very machine: the only ones that a demo's pages lead to.
pub(crate) fn local(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_here.then_some(url)
}

/// What all pages share: how they look, and what brings them to life.
pub(crate) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let serve = |kind: &'static str, text: &'static str| get(move || async move { asset(kind, text) });
    Router::new()
        .route("/style.css", serve("text/css; charset=utf-8", include_str!("web/style.css")))
        .route("/live.js", serve("text/javascript; charset=utf-8", include_str!("web/live.js")))
        .route("/icon.svg", serve("image/svg+xml", include_str!("web/icon.svg")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::CONTENT_SECURITY_POLICY;

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
