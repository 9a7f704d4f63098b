//! Certificates are fetched once and kept. If there is none, that is also remembered.

use super::fake::{Asked, Fake, Told, Trouble, World};
use super::*;
use crate::http::plain_client;
use crate::provider::certificates::{CertificateError, Certificates, Limits};
use crate::provider::client::bounded;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::HashMap;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

/// The files of the server, by path.
struct Files(HashMap<&'static str, Told>);

impl World for Files {
    fn answer(&mut self, asked: &Asked) -> Option<Told> {
        let path = asked.line.strip_prefix("GET ").unwrap();
        Some(self.0.get(path).cloned().unwrap_or(Told { status: 404, ..Told::default() }))
    }
}

fn file(status: u16, body: impl Into<String>) -> Told {
    Told { status, body: body.into(), ..Told::default() }
}

async fn fake() -> Fake<Files> {
    Fake::start(Files([("/A", file(200, PEM)), ("/B", file(200, format!("# B\n{PEM}")))].into())).await
}

/// Limits that are never reached: nothing expires.
const PATIENT: Limits = Limits {
    deadlines: FAST.deadlines,
    fresh: Duration::from_secs(3600),
    refused: Duration::from_secs(3600),
    unavailable: Duration::from_secs(3600),
    fetches_max: 1000,
};

fn certificates(limits: Limits) -> Certificates {
    Certificates::of(bounded(plain_client(), limits.deadlines).build().unwrap(), limits)
}

fn is_unavailable(got: &Result<Bytes, CertificateError>) -> bool {
    matches!(got, Err(CertificateError::Unavailable { .. }))
}

fn fault(got: Result<Bytes, CertificateError>) -> &'static str {
    let Err(CertificateError::Refused { fault }) = got else { panic!("{got:?}") };
    fault
}

#[tokio::test]
async fn many_who_need_one_ask_once_and_it_is_kept() {
    let fake = fake().await;
    let certificates = certificates(PATIENT);
    let (a, b) = (format!("{}/A", fake.base), format!("{}/B", fake.base));
    for got in join_all((0..50).map(|_| certificates.get(&a))).await {
        assert_eq!(got.unwrap(), PEM);
    }
    assert_eq!(certificates.get(&b).await.unwrap(), format!("# B\n{PEM}"));
    assert_eq!(certificates.get(&a).await.unwrap(), PEM);
    assert_eq!(fake.lines(), ["GET /A", "GET /B"]);
}

#[tokio::test]
async fn where_there_is_none_nobody_asks_again() {
    let fake = fake().await;
    let certificates = certificates(PATIENT);
    let url = format!("{}/NONE", fake.base);
    for got in join_all((0..50).map(|_| certificates.get(&url))).await {
        assert_eq!(fault(got), "was not found at its address");
    }
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn what_is_no_certificate_is_refused() {
    let (fake, elsewhere) = (fake().await, fake().await);
    let redirect = |status| file(status, PEM).with("location", format!("{}/A", elsewhere.base));
    let rows = [
        (file(200, "<html>"), "was not found: its address has other content"),
        (file(200, ""), "was not found: its address has other content"),
        (file(200, PEM.repeat(1200)), "is longer than 65536 bytes"),
        (file(204, ""), "was not found at its address"),
        (file(403, PEM), "was not found at its address"),
        (redirect(302), "was not found at its address"),
        (redirect(308), "was not found at its address"),
    ];
    for (told, expected) in rows {
        fake.will([Trouble::Instead(told)]);
        assert_eq!(fault(certificates(PATIENT).get(&format!("{}/A", fake.base)).await), expected);
    }
    assert!(elsewhere.asked().is_empty(), "no redirect is followed");
}

#[tokio::test]
async fn trouble_is_for_now_and_gives_the_other_side_a_rest() {
    let fake = fake().await;
    let url = format!("{}/A", fake.base);
    let deadlines = Deadlines { whole: SHORT, ..FAST.deadlines };
    for trouble in [
        Trouble::Instead(file(500, "")),
        Trouble::Instead(file(503, "")),
        Trouble::Instead(file(429, "")),
        Trouble::Lost,
        Trouble::Hang,
    ] {
        let before = fake.asked().len();
        fake.will([trouble]);
        let resting = certificates(Limits { deadlines, ..PATIENT });
        assert!(is_unavailable(&resting.get(&url).await));
        assert!(is_unavailable(&resting.get(&url).await), "it is not asked again at once");
        assert_eq!(fake.asked().len(), before + 1);
    }
    fake.will([Trouble::Instead(file(503, ""))]);
    let eager = certificates(Limits { unavailable: Duration::ZERO, ..PATIENT });
    assert!(is_unavailable(&eager.get(&url).await));
    assert_eq!(eager.get(&url).await.unwrap(), PEM, "later it is fetched");
}

#[tokio::test]
async fn a_kept_one_is_asked_for_anew_in_time_and_outlives_trouble() {
    let fake = fake().await;
    let url = format!("{}/A", fake.base);
    let forgetful = certificates(Limits { fresh: Duration::ZERO, ..PATIENT });
    assert_eq!(forgetful.get(&url).await.unwrap(), PEM);
    assert_eq!(forgetful.get(&url).await.unwrap(), PEM);
    assert_eq!(fake.asked().len(), 2);
    fake.will([Trouble::Instead(file(503, ""))]);
    assert_eq!(forgetful.get(&url).await.unwrap(), PEM, "the kept certificate is used while PayPal is away");
    assert_eq!(forgetful.get(&url).await.unwrap(), PEM);
    assert_eq!(fake.asked().len(), 3);
    // A certificate that PayPal has withdrawn is not used any more.
    let forgetful = certificates(Limits { fresh: Duration::ZERO, ..PATIENT });
    assert_eq!(forgetful.get(&url).await.unwrap(), PEM);
    fake.world(|files| files.0.clear());
    assert_eq!(fault(forgetful.get(&url).await), "was not found at its address");
    assert_eq!(fault(forgetful.get(&url).await), "was not found at its address");
}

/// Made-up addresses of the right host cause a limited number of fetches. Known certificates still work.
#[tokio::test]
async fn made_up_addresses_ask_so_often_and_cost_the_known_ones_nothing() {
    let fake = fake().await;
    let certificates = certificates(Limits { fetches_max: 10, ..PATIENT });
    let known = format!("{}/A", fake.base);
    certificates.get(&known).await.unwrap();
    let made_up: Vec<_> = (0..300).map(|n| format!("{}/CERT-{n}", fake.base)).collect();
    let got = join_all(made_up.iter().map(|url| certificates.get(url))).await;
    assert_eq!(fake.asked().len(), 10);
    assert_eq!(got.iter().filter(|got| is_unavailable(got)).count(), 291, "the other webhooks must come again");
    assert_eq!(certificates.get(&known).await.unwrap(), PEM);
    assert!(is_unavailable(&certificates.get(&format!("{}/B", fake.base)).await));
    assert_eq!(fake.asked().len(), 10);
}

#[tokio::test]
async fn no_more_are_remembered_than_there_is_room_for() {
    let fake = fake().await;
    let patient = certificates(PATIENT);
    let url = |n: usize| format!("{}/CERT-{n}", fake.base);
    let used = format!("{}/A", fake.base);
    patient.get(&used).await.unwrap();
    fake.world(|files| {
        for n in 0..70 {
            files.0.insert(format!("/CERT-{n}").leak(), file(200, PEM));
        }
    });
    for n in 0..70 {
        patient.get(&url(n)).await.unwrap();
        patient.get(&used).await.unwrap();
    }
    assert_eq!(fake.asked().len(), 71, "the certificate in use stays");
    patient.get(&url(69)).await.unwrap();
    assert_eq!(fake.asked().len(), 71);
    patient.get(&url(0)).await.unwrap();
    assert_eq!(fake.asked().len(), 72, "the least recently used one was removed");
    for n in 100..400 {
        assert!(patient.get(&url(n)).await.is_err());
    }
    assert_eq!(fake.asked().len(), 372);
    assert!(patient.get(&url(399)).await.is_err());
    assert_eq!(fake.asked().len(), 372);
    assert!(patient.get(&url(100)).await.is_err());
    assert_eq!(fake.asked().len(), 373);
}

/// Certificates are fetched over https only, even if the address says http.
#[tokio::test]
async fn nothing_is_fetched_in_the_clear() {
    let fake = fake().await;
    let certificates = match Certificates::new(crate::http::system_roots()) {
        // This machine trusts no certificate authority.
        Err(BuildError::NoRoots) => return,
        made => made.unwrap(),
    };
    assert!(certificates.get(&format!("{}/A", fake.base)).await.is_err());
    assert!(fake.asked().is_empty());
    assert!(matches!(Certificates::new(rustls::RootCertStore::empty()), Err(BuildError::NoRoots)));
}
