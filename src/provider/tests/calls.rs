//! The limits of one call, and how often it is tried. The tests use Stripe, and PayPal works in the same way.

use super::fake::{Fake, Told, Trouble};
use super::fake_stripe::{Stripe, error, intent};
use super::*;
use std::error::Error as _;
use tokio::time::Instant;

async fn fake() -> Fake<Stripe> {
    Fake::start(Stripe { intents: vec![intent("pi_1", None)], ..Stripe::default() }).await
}

async fn ask(providers: &Providers) -> Result<Option<Found>, CallError> {
    providers.fetch(&Provider::STRIPE, None, &id("pi_1")).await
}

fn instead(status: u16, body: &str) -> Trouble {
    Trouble::Instead(Told { status, body: body.to_owned(), ..Told::default() })
}

fn limits(whole: Duration) -> Limits {
    Limits { deadlines: Deadlines { whole, ..FAST.deadlines }, ..FAST }
}

fn detail(error: CallError) -> String {
    match error {
        CallError::Odd { detail } | CallError::Unavailable { detail, .. } | CallError::Refused { detail, .. } => detail,
        CallError::Burnt { .. } | CallError::KeyReused | CallError::Unsupported => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_server_that_is_slow_meets_the_deadline_each_time() {
    let fake = fake().await;
    fake.will([Trouble::Hang, Trouble::Hang, Trouble::Hang]);
    let began_at = Instant::now();
    let error = ask(&stripe_with(&fake, limits(SHORT))).await.unwrap_err();
    assert!(matches!(&error, CallError::Unavailable { retry_after: None, .. }), "{error:?}");
    assert_eq!(detail(error), "no answer within 200 ms");
    assert_eq!(fake.asked().len(), 3);
    assert!(began_at.elapsed() >= 3 * SHORT && began_at.elapsed() < 20 * SHORT);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_asked_for_again() {
    let fake = fake().await;
    fake.will([Trouble::Lost, Trouble::Lost]);
    assert_eq!(ask(&stripe_of(&fake)).await.unwrap().unwrap().payment_id, id("pi_1"));
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn nobody_there_is_transient_and_says_so() {
    // The socket is bound, so no other program gets the port, and nothing listens on it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    let error = ask(&Providers::with_limits(Some(at_stripe(&base)), None, FAST).unwrap()).await.unwrap_err();
    assert!(error.is_transient() && detail(error.clone()).contains("refused"), "{error:?}");
}

#[tokio::test]
async fn faults_of_the_server_are_tried_again_and_then_told() {
    let fake = fake().await;
    let providers = stripe_of(&fake);
    fake.will([instead(503, "sorry"), instead(502, "")]);
    assert!(ask(&providers).await.unwrap().is_some());
    assert_eq!(fake.asked().len(), 3);
    fake.will([instead(503, ""), instead(503, ""), instead(500, "<html>")]);
    let error = ask(&providers).await.unwrap_err();
    assert_eq!(error, CallError::Unavailable { detail: "500 Internal Server Error".to_owned(), retry_after: None });
    assert_eq!(fake.asked().len(), 6);
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let fake = fake().await;
    let rows =
        [(400, "invalid_request_error"), (401, "authentication_error"), (402, "card_error"), (403, "x"), (404, "")];
    for (status, kind) in rows {
        let before = fake.asked().len();
        fake.will([Trouble::Instead(error(status, kind, Some("a_code"), "Some words.\n\u{7}"))]);
        let error = ask(&stripe_of(&fake)).await.unwrap_err();
        assert!(matches!(error, CallError::Refused { status: told, .. } if told == status), "{error:?}");
        let detail = detail(error);
        assert!(detail.contains(kind) && detail.contains("a_code Some words."), "{detail:?}");
        assert!(!detail.contains(char::is_control), "{detail:?}");
        assert_eq!(fake.asked().len(), before + 1);
    }
}

#[tokio::test]
async fn a_provider_that_wants_to_be_left_alone_is() {
    let fake = fake().await;
    let busy =
        |seconds: &str| Trouble::Instead(error(429, "rate_limit", None, "Slow down.").with("retry-after", seconds));
    fake.will([busy("1")]);
    assert!(ask(&stripe_of(&fake)).await.unwrap().is_some());
    let asked = fake.asked();
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1));
    // The provider asks for a longer wait than a call may last. The caller has to wait.
    fake.will([busy("3600")]);
    let error = ask(&stripe_of(&fake)).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { retry_after: Some(told), .. } if told.as_secs() == 3600));
    assert_eq!(fake.asked().len(), 3);
    for nonsense in ["-1", "soon", "99999999999999999999"] {
        fake.will([busy(nonsense)]);
        assert!(ask(&stripe_of(&fake)).await.is_ok(), "{nonsense}");
    }
}

#[tokio::test]
async fn no_try_begins_after_the_last_moment() {
    let fake = fake().await;
    let patience = Patience { last_try_after: SHORT / 2, ..FAST.patience };
    fake.will([Trouble::Hang]);
    assert!(ask(&stripe_with(&fake, Limits { patience, ..limits(SHORT) })).await.unwrap_err().is_transient());
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let fake = fake().await;
    let mut long = intent("pi_1", None);
    long["description"] = "x".repeat(1024 * 1024).into();
    fake.will([instead(200, &long.to_string())]);
    assert_eq!(detail(ask(&stripe_of(&fake)).await.unwrap_err()), "200 OK: longer than 1048576 bytes");
    assert_eq!(fake.asked().len(), 1);
    long["description"] = "x".repeat(1024 * 1000).into();
    fake.will([instead(200, &long.to_string())]);
    assert!(ask(&stripe_of(&fake)).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (fake, elsewhere) = (fake().await, fake().await);
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/v1/payment_intents/pi_1", elsewhere.base);
        fake.will([Trouble::Instead(Told { status, ..Told::default() }.with("location", to))]);
        let detail = detail(ask(&stripe_of(&fake)).await.unwrap_err());
        assert!(detail.contains("a redirect is not followed"), "{detail}");
    }
    assert_eq!((fake.asked().len(), elsewhere.asked().len()), (5, 0));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_odd_and_names_the_field_alone() {
    let fake = fake().await;
    let mut without_status = intent("pi_1", None);
    without_status["status"] = 5.into();
    let mut of_other_kind = intent("pi_1", None);
    of_other_kind["object"] = "customer".into();
    let rows = [
        ("{\"id\":".to_owned(), "200 OK: not JSON"),
        ("[1]".to_owned(), "the body is not a JSON object"),
        ("{}".to_owned(), "object: is missing"),
        (of_other_kind.to_string(), "object: must be \"payment_intent\""),
        (without_status.to_string(), "status: must be a text"),
        (format!("{}1{}", "[".repeat(5000), "]".repeat(5000)), "200 OK: not JSON"),
    ];
    for (body, words) in rows {
        let before = fake.asked().len();
        fake.will([instead(200, &body)]);
        assert_eq!(ask(&stripe_of(&fake)).await.unwrap_err(), CallError::Odd { detail: words.to_owned() });
        assert_eq!(fake.asked().len(), before + 1, "an odd answer is not asked for again");
    }
}

#[tokio::test]
async fn a_secret_that_a_server_throws_back_is_in_no_error() {
    let fake = fake().await;
    let settings =
        StripeSettings { key: crate::followed::Followed::new("sk_test_other".into()), ..at_stripe(&fake.base) };
    let providers = Providers::with_limits(Some(settings.clone()), None, FAST).unwrap();
    let error = ask(&providers).await.unwrap_err();
    assert!(detail(error.clone()).contains("Invalid API Key provided: Bearer ***"), "{error:?}");
    for shown in [format!("{error:?}"), error.to_string(), format!("{providers:?}"), format!("{settings:?}")] {
        assert!(!shown.contains("sk_test_other"), "{shown}");
    }
}

#[test]
fn what_only_the_buyer_may_see_is_not_shown() {
    let created = Created {
        payment_id: id("pi_1"),
        client_secret: Some("pi_1_secret_x".to_owned()),
        approve_url: Some("https://paypal.example/token".to_owned()),
        is_replay: false,
    };
    let shown = format!("{created:?}");
    assert!(shown.contains("***") && !shown.contains("secret_x") && !shown.contains("token"), "{shown}");
}

#[test]
fn an_address_is_https_or_on_loopback() {
    for good in ["http://127.0.0.1:1", "http://localhost:8080/", "http://[::1]:80/stripe", "http://127.9.9.9"] {
        assert!(Providers::new(Some(at_stripe(good)), None).is_ok(), "{good}");
        assert!(Providers::new(None, Some(at_paypal(good))).is_ok(), "{good}");
    }
    let bad_ones = [
        "http://api.stripe.com",
        "http://10.0.0.1",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "ftp://127.0.0.1",
        "https://user:password@api.stripe.com",
        "https://api.stripe.com?x=1",
        "api.stripe.com",
        "/v1",
        "",
    ];
    for bad in bad_ones {
        for error in [
            Providers::new(Some(at_stripe(bad)), None).unwrap_err(),
            Providers::new(None, Some(at_paypal(bad))).unwrap_err(),
        ] {
            assert!(matches!(error, BuildError::BadBase { .. }), "{bad}: {error:?}");
            assert!(!error.to_string().contains("password@"), "{error}");
        }
    }
}

#[test]
fn credentials_can_stand_in_a_header() {
    for bad in ["", "a b", "a\nb", "ä"] {
        let stripe =
            StripeSettings { key: crate::followed::Followed::new(bad.into()), ..at_stripe("http://127.0.0.1") };
        let id = PaypalSettings { client_id: bad.to_owned(), ..at_paypal("http://127.0.0.1") };
        let secret = PaypalSettings {
            client_secret: crate::followed::Followed::new(bad.into()),
            ..at_paypal("http://127.0.0.1")
        };
        for error in [
            Providers::new(Some(stripe), None).unwrap_err(),
            Providers::new(None, Some(id)).unwrap_err(),
            Providers::new(None, Some(secret)).unwrap_err(),
        ] {
            assert!(matches!(error, BuildError::BadCredentials { .. }), "{bad:?}: {error:?}");
            assert!(error.source().is_none());
        }
    }
    let colon = PaypalSettings { client_id: "a:b".to_owned(), ..at_paypal("http://127.0.0.1") };
    assert!(Providers::new(None, Some(colon)).is_err());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_gets_nothing_over_https() {
    let fake = fake().await;
    let base = fake.base.replace("http://", "https://");
    let providers = match Providers::with_limits(Some(at_stripe(&base)), None, FAST) {
        // This machine trusts no certificate authority.
        Err(BuildError::NoRoots) => return,
        built => built.unwrap(),
    };
    assert!(ask(&providers).await.unwrap_err().is_transient());
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn a_provider_that_is_not_set_up_is_unsupported() {
    let providers = Providers::new(Some(at_stripe("http://127.0.0.1:1")), None).unwrap();
    assert!(providers.can_create(&Provider::STRIPE) && !providers.can_create(&Provider::PAYPAL));
    assert!(!providers.can_create(&Provider::STANDARD) && !providers.can_create(&Provider::new("acme").unwrap()));
    let fetched = providers.fetch(&Provider::PAYPAL, None, &id("X")).await;
    assert_eq!(fetched, Err(CallError::Unsupported));
    assert_eq!(
        providers.create(&payment(Provider::PAYPAL, order(1)), "k", Retry::Backoff).await,
        Err(CallError::Unsupported)
    );
    let captured = providers.capture(&Provider::STRIPE, &id("pi_1"), order(1)).await;
    assert_eq!(captured, Err(CallError::Unsupported));
    assert_eq!(Provider::new("paypal"), Ok(Provider::PAYPAL));
}

#[test]
fn calls_can_be_made_from_any_task() {
    fn sendable<T: Send>(_: T) {}
    let providers = Providers::new(None, None).unwrap();
    let (new, id) = (payment(Provider::PAYPAL, order(1)), id("X"));
    sendable(providers.create(&new, "k", Retry::Backoff));
    sendable(providers.fetch(&Provider::PAYPAL, None, &id));
    sendable(providers.list_of_order(&Provider::STRIPE, None, order(1), at(0)));
    sendable(providers.capture(&Provider::PAYPAL, &id, order(1)));
}
