//! Values that cannot work, and secrets that are read again while a process runs.

use super::*;

/// Values that cannot work, for every variable. Some of them are typical mistakes of shells, templates and people in a hurry.
const REFUSED: &[(&str, &[&str])] = &[
    ("DATABASE_URL", &["postgres://", "postgres://u:p@/x", "postgres://u:p@h:0/x", "postgres://h/x?sslmode=no"]),
    ("AMQP_URL", &["amqp://", "amqp://u:p@h:0/v", "amqp://u:p@h/v?heartbeat=abc", "amqp://u:%ff@h/v", "amqp://u@h/v"]),
    ("GRANTONCE_LIVEMODE", &["yes", "TRUE", "1"]),
    ("GRANTONCE_RECEIVER_ADDR", &["8080", ":8080", "localhost:8080", "0.0.0.0", "0.0.0.0:65536", "::1:8080"]),
    ("GRANTONCE_API_ADDR", &["http://127.0.0.1:8081", "255.255.255.255:80"]),
    ("GRANTONCE_OPS_ADDR", &["127.0.0.1:"]),
    ("GRANTONCE_METRICS_ADDR", &["127.0.0.1:9090/metrics"]),
    ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", &["short", "whsec_0123456789abcdef,,x"]),
    ("GRANTONCE_STANDARD_WEBHOOK_SECRETS", &["whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
    ("GRANTONCE_PAYPAL_WEBHOOK_IDS", &["a b", "a-b", ","]),
    ("GRANTONCE_PAYPAL_CERT_HOSTS", &["https://api.paypal.com"]),
    ("GRANTONCE_ADYEN_HMAC_KEYS", &["abc", "44782DEF547AAA06"]),
    ("GRANTONCE_ADYEN_CAPTURE", &["auto"]),
    ("GRANTONCE_API_TOKENS", &["0123456789abcdef", "a:short", "A:0123456789abcdef"]),
    ("GRANTONCE_STATUS_TOKEN_KEY", &["short"]),
    ("GRANTONCE_CORS_ORIGINS", &["*", "https://shop.example/", "shop.example"]),
    ("GRANTONCE_OPS_TOKENS", &["ada"]),
    ("GRANTONCE_STRIPE_API_KEY", &["sk_live_1", "sk live"]),
    (
        "GRANTONCE_STRIPE_API_BASE",
        &[
            "api.stripe.com",
            "http://api.stripe.com",
            "https://api.stripe.com/?a=b",
            "https:///x",
            "https:api.stripe.com",
        ],
    ),
    ("GRANTONCE_PAYPAL_CLIENT_ID", &["a b", "a:b", "é"]),
    ("GRANTONCE_PAYPAL_CLIENT_SECRET", &["a b"]),
    ("GRANTONCE_PAYPAL_API_BASE", &["http://api-m.paypal.com", "https://api-m.paypal.com:0"]),
    ("GRANTONCE_RECONCILE_AFTER", &["2", "2d", "-1s"]),
    ("GRANTONCE_WORKERS", &["0", "33", "3.5", "many"]),
    ("GRANTONCE_BATCH_MAX", &["0", "1001"]),
    ("GRANTONCE_BATCH_WAIT_MS", &["5ms", "1001"]),
    ("GRANTONCE_PREFETCH", &["10", "0", "65536"]),
    ("GRANTONCE_PREFETCH_BYTES", &["1048575", "64MiB", "-1"]),
    ("GRANTONCE_KEEP_ALIVE", &["0s", "2h", "75"]),
    ("GRANTONCE_SHUTDOWN_DELAY", &["11m", "5"]),
    ("GRANTONCE_DRAIN_DEADLINE", &["0s", "11m"]),
    ("GRANTONCE_RETRY_DELAYS", &["5", "1m,5s"]),
    ("GRANTONCE_MAX_ATTEMPTS", &["0", "1001"]),
    ("GRANTONCE_OUTAGE_GRACE", &["61s", "0s"]),
    ("GRANTONCE_DISPUTE_POLICY", &["keep"]),
    ("GRANTONCE_UNKNOWN_PAYMENTS", &["drop"]),
    ("GRANTONCE_INBOX_RETENTION", &["12h"]),
    ("GRANTONCE_DEAD_LETTER_RETENTION", &["for ever"]),
    ("GRANTONCE_MANAGEMENT_URL", &["mq:15672", "http://", "http://u:p@mq:0"]),
    ("GRANTONCE_LOG_FORMAT", &["xml"]),
    ("RUST_LOG", &["info,="]),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", &["collector:4317", "http://collector:4318?x"]),
];

#[test]
fn o15_every_variable_refuses_what_cannot_work() {
    let mut environment = enough();
    for variable in VARIABLES {
        let Some((_, values)) = REFUSED.iter().find(|(name, _)| *name == variable.name) else {
            panic!("{} has no bad value in this table", variable.name)
        };
        for value in *values {
            let found = faults(Role::All, &enough().with(variable.name, *value));
            assert!(found.iter().any(|fault| fault.starts_with(variable.name)), "{}={value}: {found:?}", variable.name);
            environment = environment.with(variable.name, *value);
        }
        let found = faults(Role::All, &enough().with_not_utf8(variable.name));
        assert!(found.iter().any(|fault| fault.starts_with(variable.name)), "{} not UTF-8: {found:?}", variable.name);
    }
    // All bad values at once.
    let found = faults(Role::All, &environment);
    for variable in VARIABLES {
        assert!(found.iter().any(|fault| fault.starts_with(variable.name)), "{} is not reported", variable.name);
    }
}

#[test]
fn listeners_of_one_process_share_no_port() {
    let with = |receiver: &str, metrics: &str| {
        let environment = enough().with("GRANTONCE_RECEIVER_ADDR", receiver).with("GRANTONCE_METRICS_ADDR", metrics);
        faults(Role::Receiver, &environment).len()
    };
    for (receiver, metrics) in
        [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "127.0.0.1:1"), ("[::1]:1", "[::]:1")]
    {
        assert_eq!(with(receiver, metrics), 1, "{receiver} {metrics}");
    }
    for (receiver, metrics) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("0.0.0.0:1", "[::1]:1"),
    ] {
        assert_eq!(with(receiver, metrics), 0, "{receiver} {metrics}");
    }
    // The address of another role does not matter.
    assert!(faults(Role::Worker, &enough().with("GRANTONCE_METRICS_ADDR", "127.0.0.1:8081")).is_empty());
}

#[test]
fn o14_what_comes_from_a_file_is_followed_and_what_does_not_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets");
    std::fs::write(&path, "whsec_0123456789abcdef").unwrap();
    let environment = without("GRANTONCE_STRIPE_WEBHOOK_SECRETS")
        .with("GRANTONCE_STRIPE_WEBHOOK_SECRETS_FILE", path.to_str().unwrap());
    let config = Config::<AllConfig>::from_env(&environment).unwrap();
    assert_eq!(format!("{:?}", config.process.secret_files), "[\"GRANTONCE_STRIPE_WEBHOOK_SECRETS\"]");
    // Every secret can be followed. The table says which variables are secrets, the parser says which are followed.
    let mut every = enough().with("GRANTONCE_PAYPAL_CLIENT_ID", "id");
    let values = [
        ("GRANTONCE_STANDARD_WEBHOOK_SECRETS", STANDARD),
        ("GRANTONCE_ADYEN_HMAC_KEYS", KEY),
        ("GRANTONCE_STRIPE_API_KEY", "rk_test_1"),
        ("GRANTONCE_PAYPAL_CLIENT_SECRET", "secret"),
    ];
    every = values.into_iter().fold(every, |every, (name, value)| every.with(name, value));
    // Only commands use the management API, and each reads its address when it starts.
    let is_followed = |variable: &&&Variable| variable.is_secret && variable.name != "GRANTONCE_MANAGEMENT_URL";
    let secrets: Vec<_> = VARIABLES.iter().filter(is_followed).map(|variable| variable.name).collect();
    for name in &secrets {
        let path = folder.path().join(name);
        std::fs::write(&path, every.get(name).unwrap()).unwrap();
        every = every.with(*name, "").with(format!("{name}_FILE"), path.to_str().unwrap());
    }
    let config = Config::<AllConfig>::from_env(&every).unwrap();
    let mut followed: Vec<_> = secrets.iter().map(|name| format!("{name:?}")).collect();
    let shown = format!("{:?}", config.process.secret_files);
    let mut found: Vec<_> = shown.trim_matches(['[', ']']).split(", ").map(str::to_owned).collect();
    followed.sort();
    found.sort();
    assert_eq!(found, followed);
}
