//! A shop that sells credits, for people to buy from and to cheat: a site's back end as its author would write one, around
//! the real API. It keeps no balance of its own: what it shows is what the API answers, and beside it what the provider sent
//! and what the ledger's tables hold.
//!
//! | file | what |
//! |---|---|
//! | `goods` | what is for sale, and buying it |
//! | `order` | the page that a buyer comes back to |
//! | `tricks` | the buttons that try to cheat |
//! | `story` | what arrived, and what became of it |

mod goods;
mod order;
mod story;
mod tricks;

use crate::api::Api;
use crate::web::{Html, Page, assets, html};
use crate::witness::Witness;
use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use grantonce_testkit::OrderId;
use grantonce_testkit::lock;
use grantonce_testkit::money::Money;
use grantonce_testkit::provider::Provider;
use grantonce_testkit::provider::payment::Seller;
use grantonce_testkit::scratch::secret;
use reqwest::Url;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// How many sales the shop remembers; then it is sold out.
const SALES_MAX: usize = 10_000;

/// How many notes of what was tried an order's page has, the last ones.
const NOTES_MAX: usize = 12;

/// How many pages are kept up to date at the same time.
const LIVE_PAGES_MAX: usize = 256;

const COOKIE_NAME: &str = "buyer";

/// A visitor's name has so many hex digits.
const VISITOR_DIGITS: usize = 16;

/// Whom the shop works with.
pub(crate) struct Partners {
    pub(crate) api: Api,
    pub(crate) provider: Provider,
    pub(crate) witness: Witness,
    /// Where the receiver listens: for forged webhooks.
    pub(crate) receiver: SocketAddr,
    /// Where the provider does: its page is where buyers pay.
    pub(crate) provider_address: SocketAddr,
}

/// The shop. Clones are the same one.
#[derive(Clone)]
struct Shop(Arc<Inner>);

struct Inner {
    partners: Partners,
    own_address: SocketAddr,
    sales: Mutex<HashMap<OrderId, Sale>>,
    live_pages: Semaphore,
}

/// What was sold to whom.
#[derive(Debug, Clone)]
struct Sale {
    order_id: OrderId,
    account_id: String,
    name: &'static str,
    credits: i64,
    price: Money,
    seller: Seller,
    payment_id: String,
    status_token: String,
    /// The provider's page, with the way back.
    pay_url: String,
    /// What was tried, the newest first.
    notes: VecDeque<String>,
}

/// The routes, for a shop that listens at `own_address`.
pub(crate) fn router(partners: Partners, own_address: SocketAddr) -> Router {
    let live_pages = Semaphore::new(LIVE_PAGES_MAX);
    let shop = Shop(Arc::new(Inner { partners, own_address, sales: Mutex::default(), live_pages }));
    Router::new()
        .route("/", get(goods::show))
        .route("/buy", post(goods::buy))
        .route("/orders/{id}", get(order::show))
        .route("/orders/{id}/return", get(order::come_back))
        .route("/orders/{id}/live", get(order::live))
        .route("/orders/{id}/try", post(tricks::play))
        .merge(assets())
        .layer(from_fn(refuse_strangers))
        .with_state(shop)
}

impl Shop {
    fn partners(&self) -> &Partners {
        &self.0.partners
    }

    /// Remembers a sale; false where the shop is full. One that is known stays as it is.
    fn remember(&self, sale: Sale) -> bool {
        let mut sales = lock(&self.0.sales);
        let has_room = sales.len() < SALES_MAX || sales.contains_key(&sale.order_id);
        if has_room {
            sales.entry(sale.order_id).or_insert(sale);
        }
        has_room
    }

    /// A visitor's own sale; nobody else's.
    fn sale(&self, visitor: &Visitor, id: OrderId) -> Option<Sale> {
        lock(&self.0.sales).get(&id).filter(|sale| sale.account_id == visitor.account_id()).cloned()
    }

    /// All sales to a visitor, the newest first: ids are in the order of time.
    fn sales(&self, visitor: &Visitor) -> Vec<Sale> {
        let account_id = visitor.account_id();
        let mut own: Vec<_> =
            lock(&self.0.sales).values().filter(|sale| sale.account_id == account_id).cloned().collect();
        own.sort_by_key(|sale| Reverse(sale.order_id));
        own
    }

    fn note(&self, id: OrderId, note: String) {
        if let Some(sale) = lock(&self.0.sales).get_mut(&id) {
            sale.notes.push_front(note);
            sale.notes.truncate(NOTES_MAX);
        }
    }

    /// The credits that a visitor's payments are worth, by the provider's books and the shop's own sums.
    fn due(&self, visitor: &Visitor) -> i64 {
        let kept = |sale: &Sale| {
            let known = self.partners().provider.known(&sale.payment_id).ok()?;
            let kept = known.payment.kept_minor(&known.state);
            Some(story::due(sale.credits, sale.price.amount_minor(), kept))
        };
        self.sales(visitor).iter().filter_map(kept).sum()
    }

    /// An address of the shop's own.
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.own_address)
    }

    /// The provider's site: buying leads there.
    fn provider_url(&self) -> Option<Url> {
        Url::parse(&format!("http://{}/", self.partners().provider_address)).ok()
    }

    fn page(&self, visitor: &Visitor, status: StatusCode, title: &str, head: Html, main: Html) -> Response {
        let body = html![
            "<header class=\"top\"><a class=\"brand\" href=\"/\"><img src=\"/icon.svg\" alt=\"\" width=\"28\" height=\"28\">"
            "Credit Kiosk</a><span class=\"dim small\">you are <code>" (visitor.account_id()) "</code></span></header>"
            "<main>" [main] "</main>"
        ];
        let leads_to = self.provider_url();
        let mut response = Page { status, title, of: "shop", head, body, leads_to: leads_to.as_ref() }.respond();
        if let Some(cookie) = visitor.cookie() {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }

    fn sorry(&self, visitor: &Visitor, status: StatusCode, what: &str) -> Response {
        let main = html![
            "<section class=\"card\"><h1>That did not work</h1><p>" (what) "</p>"
            "<p><a class=\"button\" href=\"/\">Back to the kiosk</a></p></section>"
        ];
        self.page(visitor, status, "That did not work", Html::default(), main)
    }
}

/// Who looks at a page. Nobody has to log in: whoever comes first is given a name, in a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Visitor {
    name: String,
    is_new: bool,
}

impl Visitor {
    fn account_id(&self) -> String {
        format!("buyer-{}", self.name)
    }

    fn of(headers: &HeaderMap) -> Self {
        let cookies =
            headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(';'));
        let name = cookies.filter_map(|cookie| cookie.trim().split_once('=')).find_map(|(name, value)| {
            let is_one = name == COOKIE_NAME
                && value.len() == VISITOR_DIGITS
                && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_one.then(|| value.to_owned())
        });
        match name {
            Some(name) => Self { name, is_new: false },
            None => Self { name: secret().chars().take(VISITOR_DIGITS).collect(), is_new: true },
        }
    }

    /// To be given to whoever has none.
    fn cookie(&self) -> Option<HeaderValue> {
        let text = format!("{COOKIE_NAME}={}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax", self.name);
        HeaderValue::try_from(text).ok().filter(|_| self.is_new)
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Other people's pages have no say here: a browser tells whose page sent it.
async fn refuse_strangers(request: Request, next: Next) -> Response {
    const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let is_strange = request.headers().get(FETCH_SITE).is_some_and(|site| site == "cross-site");
    if is_strange && request.method() != axum::http::Method::GET {
        return (StatusCode::FORBIDDEN, "sent by another site").into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests;
