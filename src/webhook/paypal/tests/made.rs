//! Certificates and requests as PayPal makes them, with the tests' own root.

use crate::webhook::tests::{NOW, TERMS, at, headers};
use crate::webhook::{Endpoint, Keys, Rejection, Terms, Translation, Trust, Unverified, paypal};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::sync::LazyLock;
use time::Duration;

/// The private key of every certificate in these tests.
const KEY: &str = include_str!("key.pem");

pub(super) const WEBHOOK_ID: &str = "1JE4291016473214C";
pub(super) const URL: &str = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270";
pub(super) const LIVE: &str = "messageverificationcerts.paypal.com";
pub(super) const SANDBOX: &str = "messageverificationcerts.sandbox.paypal.com";
pub(super) const TEST_TERMS: Terms = Terms { livemode: false, ..TERMS };

/// A trusted root, and one that is not trusted although it has the same name.
pub(super) static ROOT: LazyLock<Authority> = LazyLock::new(|| Authority::root("Root of the tests"));
pub(super) static STRANGER: LazyLock<Authority> = LazyLock::new(|| Authority::root("Root of the tests"));
/// An intermediate authority below the root.
static BETWEEN: LazyLock<Authority> = LazyLock::new(|| ROOT.below("Between"));
/// A certificate as PayPal's, with the intermediate authority.
pub(super) static GOOD: LazyLock<String> = LazyLock::new(|| BETWEEN.certify(&Leaf::of(LIVE)) + &BETWEEN.pem);

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pub(super) pem: String,
}

/// The content of a certificate.
pub(super) struct Leaf {
    pub(super) names: Vec<&'static str>,
    pub(super) usage: ExtendedKeyUsagePurpose,
    /// The start of the certificate's validity, in days from now.
    pub(super) from_days: i64,
    pub(super) until_days: i64,
    pub(super) is_authority: bool,
}

impl Leaf {
    pub(super) fn of(name: &'static str) -> Self {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        Self { names: vec![name], usage, from_days: -30, until_days: 30, is_authority: false }
    }
}

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params, KeyPair::generate().unwrap())
}

impl Authority {
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = authority(name);
        let made = params.self_signed(&key).unwrap();
        Self { der: made.der().clone(), pem: made.pem(), issuer: Issuer::new(params, key) }
    }

    fn below(&self, name: &str) -> Self {
        let (params, key) = authority(name);
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Self { der: made.der().clone(), pem: made.pem(), issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate, as PEM.
    pub(super) fn certify(&self, leaf: &Leaf) -> String {
        let names: Vec<_> = leaf.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        // The subject's own name is not checked. It could be anything.
        params.distinguished_name.push(DnType::CommonName, LIVE);
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.not_before = at(NOW) + Duration::days(leaf.from_days);
        params.not_after = at(NOW) + Duration::days(leaf.until_days);
        if leaf.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.signed_by(&KeyPair::from_pem(KEY).unwrap(), &self.issuer).unwrap().pem()
    }

    pub(super) fn trust(&self) -> Trust {
        let hosts = ["api.paypal.com", "api.sandbox.paypal.com", "localhost:8443"].map(str::to_owned).to_vec();
        Trust { hosts, anchors: vec![webpki::anchor_from_trusted_cert(&self.der).unwrap().to_owned()] }
    }
}

/// Signs with RSA and SHA-256. Returns base64.
pub(super) fn sign(text: &str) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    BASE64_STANDARD.encode(signature)
}

pub(super) fn keys(ids: &[&str], terms: Terms) -> Keys {
    let ids: Vec<_> = ids.iter().map(|id| (*id).into()).collect();
    Keys::new(Endpoint::Paypal, &ids, terms).unwrap().trusting(ROOT.trust())
}

/// A request, and the file at the address that it names.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) certificates: String,
    pub(super) now: i64,
}

impl Sent {
    /// A request as PayPal sends it to the webhook with this id.
    pub(super) fn to(webhook_id: &str, body: &[u8]) -> Self {
        let (id, time) = ("69cd13f0-d67a-11e5-baa3-778b53f4ae55", "2026-01-05T11:59:58Z");
        let signature = sign(&paypal::signed_text(id, time, webhook_id, body));
        let headers = [
            (paypal::ID_HEADER, id),
            (paypal::TIME_HEADER, time),
            (paypal::SIGNATURE_HEADER, signature.as_str()),
            (paypal::URL_HEADER, URL),
            (paypal::ALGORITHM_HEADER, "SHA256withRSA"),
        ];
        let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
        Self { headers, body: body.to_vec(), certificates: GOOD.clone(), now: NOW }
    }

    pub(super) fn with(mut self, header: &str, value: &str) -> Self {
        for (name, old) in &mut self.headers {
            if *name == header {
                value.clone_into(old);
            }
        }
        self
    }

    pub(super) fn under(self, certificates: impl Into<String>) -> Self {
        Self { certificates: certificates.into(), ..self }
    }

    /// The translation, if the request is accepted.
    pub(super) fn said(&self, keys: &Keys) -> Result<Vec<Translation>, Rejection> {
        let pairs: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let headers = headers(&pairs);
        let request = Unverified { headers: &headers, body: &self.body, now: at(self.now) };
        let url = keys.certificate_url(&request);
        let verified = keys.verify_with(request, self.certificates.as_bytes());
        // A request whose address is refused is never accepted.
        assert!(url.is_ok() || verified.is_err());
        verified.map(|verified| verified.translate())
    }

    pub(super) fn verdict(&self, keys: &Keys) -> Result<(), Rejection> {
        self.said(keys).map(|_| ())
    }
}
