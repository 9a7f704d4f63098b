//! What is for sale, and buying it: an order through the real API, which creates its payment at the provider, and then the
//! way to the provider's page.

use super::{Sale, Shop, Visitor};
use crate::api::{ApiError, NewOrder, OrderView};
use crate::web::{Html, html, see};
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Response;
use grantonce_testkit::provider::payment::{Seller, money};
use grantonce_testkit::scratch::secret;
use reqwest::Url;
use serde::Deserialize;
use std::collections::VecDeque;
use std::time::Duration;

/// How long placing an order may take, tries that failed included.
const PLACE_DEADLINE: Duration = Duration::from_secs(20);

/// How long a balance may take.
const BALANCE_DEADLINE: Duration = Duration::from_secs(5);

/// How many of a visitor's orders are listed.
const ORDERS_LISTED: usize = 20;

/// A cart's name has so many hex digits.
const CART_DIGITS: usize = 16;

/// Where buyers can pay, and whether that takes somebody who asks.
const SELLERS: &[(Seller, &str, bool)] = &[(Seller::Stripe, "Pay by card", false), (Seller::Paypal, "PayPal", true)];

struct Product {
    id: &'static str,
    name: &'static str,
    about: &'static str,
    credits: i64,
    amount_minor: i64,
    currency: &'static str,
}

const PRODUCTS: &[Product] = &[
    Product {
        id: "handful",
        name: "A handful",
        about: "Enough to look around.",
        credits: 100,
        amount_minor: 499,
        currency: "USD",
    },
    Product {
        id: "bag",
        name: "A bag",
        about: "What most people take.",
        credits: 500,
        amount_minor: 1999,
        currency: "USD",
    },
    Product {
        id: "chest",
        name: "A chest",
        about: "For those who mean it.",
        credits: 2_000,
        amount_minor: 5999,
        currency: "USD",
    },
];

/// What a buyer wants.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    product: String,
    seller: Seller,
    /// Made with the form: sent twice, it is one order.
    cart: String,
}

pub(crate) async fn show(State(shop): State<Shop>, visitor: Visitor) -> Response {
    let balance = shop.partners().api.balance(&visitor.account_id(), BALANCE_DEADLINE).await;
    let balance = match balance {
        Ok(credits) => html![
            "<p class=\"have\"><span class=\"big\" id=\"balance\">" (credits) "</span> <span class=\"dim\">credits are yours</span></p>"
        ],
        Err(error) => html!["<p>Your balance cannot be read now: " (error) "</p>"],
    };
    let sales = shop.sales(&visitor);
    let orders = Html::all(sales.iter().take(ORDERS_LISTED).map(|sale| {
        html![
            "<li><a href=\"/orders/" (sale.order_id) "\">" (sale.name) ", " (sale.credits) " credits</a> <span class=\"dim\">for "
            (sale.price.written()) "</span></li>"
        ]
    }));
    let orders = if sales.is_empty() { html!["<li class=\"dim\">None yet.</li>"] } else { orders };
    let offers = Html::all(PRODUCTS.iter().map(offer));
    let main = html![
        "<section class=\"card\"><h1>Buy credits. Or try to get them otherwise.</h1>"
        "<p>This kiosk is a demo of grantonce: the payments are simulated, the rest is real. After you have bought "
        "something, its page has buttons for every trick.</p>" [balance] "</section>"
        "<section class=\"goods\" aria-label=\"For sale\">" [offers] "</section>"
        "<section class=\"card\"><h2>Your orders</h2><ul class=\"plain\" id=\"orders\">" [orders] "</ul></section>"
    ];
    shop.page(&visitor, StatusCode::OK, "Credit Kiosk", Html::default(), main)
}

fn offer(product: &Product) -> Html {
    let cart: String = secret().chars().take(CART_DIGITS).collect();
    let price = money(product.amount_minor, product.currency).map(|money| money.written()).unwrap_or_default();
    let buttons = Html::all(SELLERS.iter().map(|(seller, label, takes_asking)| {
        let class = if *takes_asking { "quiet" } else { "" };
        html!["<button class=\"" (class) "\" name=\"seller\" value=\"" (seller.name()) "\">" (label) "</button>"]
    }));
    html![
        "<form class=\"card\" method=\"post\" action=\"/buy\" id=\"" (product.id) "\"><h2>" (product.name) "</h2>"
        "<p class=\"big\">" (product.credits) "</p><p class=\"dim\">credits for " (price) ". " (product.about) "</p>"
        "<input type=\"hidden\" name=\"product\" value=\"" (product.id) "\">"
        "<input type=\"hidden\" name=\"cart\" value=\"" (cart) "\"><p class=\"row\">" [buttons] "</p></form>"
    ]
}

pub(crate) async fn buy(State(shop): State<Shop>, visitor: Visitor, Form(wanted): Form<Wanted>) -> Response {
    if visitor.is_new {
        // A browser without our cookie would never find its order again.
        return see("/");
    }
    let product = PRODUCTS.iter().find(|product| product.id == wanted.product);
    let is_cart = (1..=CART_DIGITS).contains(&wanted.cart.len()) && wanted.cart.bytes().all(|b| b.is_ascii_hexdigit());
    let (Some(product), true) = (product, is_cart) else {
        return shop.sorry(&visitor, StatusCode::UNPROCESSABLE_ENTITY, "This is not for sale.");
    };
    match place(&shop, &visitor, product, &wanted).await {
        Ok(Some(pay_url)) => see(&pay_url),
        Ok(None) => {
            shop.sorry(&visitor, StatusCode::BAD_GATEWAY, "The order has no payment, or the kiosk is sold out.")
        }
        Err(error) => {
            let what = format!("{error}. Nothing is lost: go back and press the button again, it is the same order.");
            shop.sorry(&visitor, StatusCode::BAD_GATEWAY, &what)
        }
    }
}

/// The provider's page for the order's payment. The same cart gives the same order and the same payment.
async fn place(
    shop: &Shop,
    visitor: &Visitor,
    product: &'static Product,
    wanted: &Wanted,
) -> Result<Option<String>, ApiError> {
    let account_id = visitor.account_id();
    let new = NewOrder {
        account_id: &account_id,
        credits: product.credits,
        amount_minor: product.amount_minor,
        currency: product.currency,
        provider: wanted.seller.name(),
        payment_id: None,
        metadata: serde_json::json!({"product": product.id}),
    };
    let key = format!("kiosk-{account_id}-{}", wanted.cart);
    let order = shop.partners().api.place(&key, &new, PLACE_DEADLINE).await?;
    let Some(sale) = sale(shop, account_id, product, wanted.seller, order) else { return Ok(None) };
    let pay_url = sale.pay_url.clone();
    Ok(shop.remember(sale).then_some(pay_url))
}

fn sale(shop: &Shop, account_id: String, product: &'static Product, seller: Seller, order: OrderView) -> Option<Sale> {
    let payment = order.payment?;
    let payment_id = payment.payment_id?;
    let place =
        payment.approve_url.unwrap_or_else(|| format!("http://{}/pay/{payment_id}", shop.partners().provider_address));
    let back = shop.url(&format!("/orders/{}/return", order.id));
    let mut pay_url = Url::parse(&place).ok()?;
    pay_url.query_pairs_mut().append_pair("return_url", &back);
    Some(Sale {
        order_id: order.id,
        account_id,
        name: product.name,
        credits: product.credits,
        price: money(product.amount_minor, product.currency).ok()?,
        seller,
        payment_id,
        status_token: order.status_token?,
        pay_url: pay_url.into(),
        notes: VecDeque::new(),
    })
}
