//! The configuration, in a table of environments.

mod refused;

use super::*;
use crate::domain::DisputePolicy;
use crate::role::Role;
use crate::shutdown::ShutdownTimes;
use crate::telemetry::LogFormat;
use secrecy::ExposeSecret as _;
use std::time::Duration;

const TOKEN: &str = "0123456789abcdef";
const KEY: &str = "0123456789abcdef0123456789abcdef";
const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Variables that are enough for every role except the reconciler.
fn enough() -> Environment {
    [
        ("DATABASE_URL", "postgres://u:hunter2pw@db/grantonce"),
        ("AMQP_URL", "amqp://u:hunter2pw@mq/%2f"),
        ("GRANTONCE_LIVEMODE", "false"),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789abcdef"),
        ("GRANTONCE_API_TOKENS", "shop:0123456789abcdef"),
        ("GRANTONCE_OPS_TOKENS", "ada:0123456789abcdef"),
        ("GRANTONCE_STATUS_TOKEN_KEY", KEY),
    ]
    .into_iter()
    .collect()
}

fn without(name: &str) -> Environment {
    enough().with(name, "")
}

fn faults(role: Role, environment: &Environment) -> Vec<String> {
    // The reconciler needs a provider to ask.
    let asking = environment.clone().with("GRANTONCE_STRIPE_API_KEY", "rk_test_1");
    let environment = if role == Role::Reconciler { &asking } else { environment };
    let read = match role {
        Role::Migrate => read::<MigrateConfig>,
        Role::Receiver => read::<ReceiverConfig>,
        Role::Worker => read::<WorkerConfig>,
        Role::Api => read::<ApiConfig>,
        Role::Reconciler => read::<ReconcilerConfig>,
        Role::Ops => read::<OpsConfig>,
        Role::All => read::<AllConfig>,
        Role::Dlq => read::<DlqConfig>,
        Role::Orders => read::<OrdersConfig>,
        Role::Check => read::<CheckConfig>,
        Role::Verify => read::<VerifyConfig>,
    };
    match read(environment) {
        Ok(()) => Vec::new(),
        Err(faults) => faults.faults().iter().map(ToString::to_string).collect(),
    }
}

fn read<R: RoleConfig>(environment: &Environment) -> Result<(), ConfigFaults> {
    Config::<R>::from_env(environment).map(drop)
}

/// The only fault of a value, in a role that reads it.
#[track_caller]
fn fault_of(name: &str, value: &str) -> String {
    let found = faults(Role::All, &enough().with(name, value));
    assert_eq!(found.len(), 1, "{name}={value}: {found:?}");
    found.into_iter().next().unwrap()
}

fn all(environment: &Environment) -> AllConfig {
    Config::from_env(environment).unwrap().role
}

#[test]
fn every_role_starts_with_enough() {
    for role in Role::ALL {
        assert_eq!(faults(role, &enough()), Vec::<String>::new(), "{role}");
        assert_eq!(role.name().parse(), Ok(role));
    }
}

#[test]
fn a_reconciler_needs_somebody_to_ask() {
    let Err(alone) = Config::<ReconcilerConfig>::from_env(&enough()) else { panic!("no provider can be asked") };
    let [fault] = alone.faults() else { panic!("{alone:?}") };
    let fault = fault.to_string();
    assert!(fault.contains("GRANTONCE_STRIPE_API_KEY") && fault.contains("GRANTONCE_PAYPAL_CLIENT_ID"), "{fault}");
    let paypal = enough().with("GRANTONCE_PAYPAL_CLIENT_ID", "id").with("GRANTONCE_PAYPAL_CLIENT_SECRET", "secret");
    assert!(Config::<ReconcilerConfig>::from_env(&paypal).is_ok());
    assert!(all(&paypal).reconciler.is_some());
    let deaf = faults(Role::All, &enough().with("GRANTONCE_PAYPAL_WEBHOOK_IDS", "1JE4291016473214C"));
    assert!(matches!(&deaf[..], [fault] if fault.contains("GRANTONCE_PAYPAL_CLIENT_ID")), "{deaf:?}");
    assert!(fault_of("GRANTONCE_RECONCILE_AFTER", "2d").contains("from 100ms to 1d"));
}

#[test]
fn each_role_requires_what_it_needs_and_no_more() {
    use Role::*;
    for (name, required_by) in [
        ("DATABASE_URL", &[Migrate, Worker, Api, Reconciler, Ops, All, Dlq, Orders, Check, Verify][..]),
        ("AMQP_URL", &[Migrate, Receiver, Worker, Reconciler, Ops, All, Dlq, Check]),
        ("GRANTONCE_LIVEMODE", &[Receiver, Worker, Reconciler, Ops, All, Dlq]),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", &[Receiver, All]),
        ("GRANTONCE_API_TOKENS", &[Api, All]),
        ("GRANTONCE_STATUS_TOKEN_KEY", &[Api, All]),
        ("GRANTONCE_OPS_TOKENS", &[Ops, All]),
    ] {
        for role in Role::ALL {
            let found = faults(role, &without(name));
            let wanted = usize::from(required_by.contains(&role));
            assert_eq!(found.len(), wanted, "{role} without {name}: {found:?}");
            assert!(found.iter().all(|fault| fault.starts_with(name) && fault.contains("; for example ")), "{found:?}");
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let config = Config::<AllConfig>::from_env(&enough()).unwrap();
    assert_eq!(config.process.metrics_addr, "127.0.0.1:9090".parse().unwrap());
    assert_eq!(config.process.otlp_endpoint, None);
    let (delay, drain_deadline) = (Duration::from_secs(5), Duration::from_secs(10));
    assert_eq!(config.process.shutdown, ShutdownTimes { delay, drain_deadline });
    // A worker gets no requests, so it does not wait until load balancers notice its stop.
    let worker = Config::<WorkerConfig>::from_env(&enough()).unwrap();
    assert_eq!(worker.process.shutdown, ShutdownTimes { delay: Duration::ZERO, drain_deadline });
    let AllConfig { receiver, worker, api, reconciler, ops } = all(&enough());
    assert_eq!(ops.addr, "127.0.0.1:8082".parse().unwrap());
    assert_eq!((ops.terms.livemode, ops.terms.dispute_policy), (false, DisputePolicy::Hold));
    assert!(reconciler.is_none(), "no provider to ask");
    assert_eq!(receiver.addr, "0.0.0.0:8080".parse().unwrap());
    assert!([receiver.keep_alive, api.keep_alive, ops.keep_alive].iter().all(|kept| kept.as_secs() == 75));
    assert_eq!(api.addr, "127.0.0.1:8081".parse().unwrap());
    assert!(api.cors_origins.is_empty() && api.providers.stripe.is_none() && api.providers.paypal.is_none());
    assert_eq!(
        worker.batch,
        BatchConfig {
            workers: 3,
            messages_max: 500,
            wait: Duration::from_millis(2),
            prefetch: 2500,
            prefetch_bytes: 67_108_864
        }
    );
    let labels: Vec<_> = worker.retry.delays.iter().map(|d| (d.label.as_str(), d.delay.as_secs())).collect();
    assert_eq!(labels, [("5s", 5), ("1m", 60), ("10m", 600)]);
    assert_eq!(worker.retry.attempts_max, 10);
    assert_eq!(worker.outage_grace, Duration::from_secs(10));
    assert_eq!(worker.inbox_retention, Duration::from_secs(90 * 86400));
    assert_eq!(worker.dispute_policy, DisputePolicy::Hold);
    assert_eq!(worker.unknown_payments, UnknownPayments::DeadLetter);
}

#[test]
fn what_is_set_is_what_the_role_gets() {
    let environment = enough()
        .with("GRANTONCE_LIVEMODE", "true")
        .with("GRANTONCE_RECEIVER_ADDR", "127.0.0.1:0")
        .with("GRANTONCE_WORKERS", "32")
        .with("GRANTONCE_BATCH_MAX", "1000")
        .with("GRANTONCE_RETRY_DELAYS", "200ms, 60s,2h")
        .with("GRANTONCE_DISPUTE_POLICY", "lost")
        .with("GRANTONCE_UNKNOWN_PAYMENTS", "ignore")
        .with("GRANTONCE_STANDARD_WEBHOOK_SECRETS", format!("{STANDARD},{STANDARD}"))
        .with("GRANTONCE_STRIPE_API_KEY", "sk_live_1")
        .with("GRANTONCE_STRIPE_API_BASE", "http://127.0.0.1:12111/")
        .with("GRANTONCE_CORS_ORIGINS", "https://shop.example,http://localhost:3000")
        .with("GRANTONCE_LOG_FORMAT", "json")
        .with("GRANTONCE_SHUTDOWN_DELAY", "0s")
        .with("GRANTONCE_API_TOKENS", "shop:0123456789abcdef, back-office:0123456789abcde:");
    assert_eq!(Config::<AllConfig>::from_env(&environment).unwrap().process.log_format, LogFormat::Json);
    let AllConfig { receiver, worker, api, reconciler: _, ops: _ } = all(&environment);
    assert!(receiver.livemode && worker.livemode);
    assert_eq!(receiver.addr.port(), 0);
    assert_eq!(receiver.secrets.standard.current().len(), 2);
    assert_eq!(worker.batch.prefetch, 34_000);
    assert_eq!(worker.retry.delays[1], RetryDelay { label: "60s".to_owned(), delay: Duration::from_secs(60) });
    assert_eq!((worker.dispute_policy, worker.unknown_payments), (DisputePolicy::Lost, UnknownPayments::Ignore));
    assert_eq!(api.cors_origins, ["https://shop.example", "http://localhost:3000"]);
    assert_eq!(api.providers.stripe.unwrap().base, "http://127.0.0.1:12111");
    let (name, token) = api.tokens.current()[1].clone().into();
    assert_eq!((name.as_str(), token.expose_secret()), ("back-office", "0123456789abcde:"));
}

#[test]
fn a_wrong_value_is_told_with_what_would_be_right() {
    for (name, value, part) in [
        ("GRANTONCE_LIVEMODE", "yes", "is \"yes\": it must be true or false; for example GRANTONCE_LIVEMODE=true"),
        ("GRANTONCE_WORKERS", "0", "a whole number from 1 to 32"),
        ("GRANTONCE_WORKERS", "-1", "a whole number from 1 to 32"),
        ("GRANTONCE_BATCH_MAX", "1001", "from 1 to 1000"),
        ("GRANTONCE_BATCH_WAIT_MS", "5ms", "from 0 to 1000"),
        ("GRANTONCE_PREFETCH", "65536", "from 1 to 65535"),
        ("GRANTONCE_PREFETCH", "499", "must not be below GRANTONCE_BATCH_MAX, 500"),
        ("GRANTONCE_MAX_ATTEMPTS", "0", "from 1 to 1000"),
        ("GRANTONCE_RECEIVER_ADDR", "localhost:80", "an IP address and a port"),
        ("GRANTONCE_OUTAGE_GRACE", "61s", "from 100ms to 1m"),
        ("GRANTONCE_KEEP_ALIVE", "0s", "from 1s to 1h"),
        ("GRANTONCE_SHUTDOWN_DELAY", "5", "a duration such as 200ms, 5s, 1m, 2h or 90d, from 0ms to 10m"),
        ("GRANTONCE_SHUTDOWN_DELAY", "00s", "from 0ms to 10m"),
        ("GRANTONCE_DRAIN_DEADLINE", "500ms", "from 1s to 10m"),
        ("GRANTONCE_INBOX_RETENTION", "12h", "from 1d to 3650d"),
        ("GRANTONCE_DEAD_LETTER_RETENTION", "for ever", "a duration such as"),
        ("GRANTONCE_DISPUTE_POLICY", "keep", "must be hold or lost"),
        ("GRANTONCE_UNKNOWN_PAYMENTS", "drop", "must be dead_letter or ignore"),
        ("GRANTONCE_LOG_FORMAT", "xml", "must be text or json"),
        ("GRANTONCE_CORS_ORIGINS", "https://shop.example/", "an origin and nothing more: https://shop.example"),
        ("GRANTONCE_CORS_ORIGINS", "*", "entry 1 must be a URL"),
        ("GRANTONCE_PAYPAL_CERT_HOSTS", "api.paypal.com,https://api.paypal.com", "entry 2 must be a host"),
        ("GRANTONCE_PAYPAL_CERT_HOSTS", "api.paypal.com/v1", "entry 1 must be a host"),
        ("GRANTONCE_PAYPAL_CERT_HOSTS", "API.paypal.com", "entry 1 must be a host in small letters"),
        ("GRANTONCE_PAYPAL_CERT_HOSTS", "user@api.paypal.com", "entry 1 must be a host"),
        ("GRANTONCE_PAYPAL_CERT_HOSTS", "api.paypal.com,", "entry 2 must be a host"),
        ("GRANTONCE_STRIPE_API_BASE", "api.stripe.com", "must be a URL that begins with https:// or http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "must be a URL"),
        ("RUST_LOG", "info,=", "must be directives"),
        ("GRANTONCE_PAYPAL_CLIENT_ID", "abc", "and GRANTONCE_PAYPAL_CLIENT_SECRET come together"),
        ("GRANTONCE_API_ADDR", "0.0.0.0:8080", "has the port of GRANTONCE_RECEIVER_ADDR"),
        ("GRANTONCE_METRICS_ADDR", "[::]:8082", "has the port of GRANTONCE_OPS_ADDR"),
        ("GRANTONCE_METRICS_ADDR", "224.0.0.1:1", "an address that a program can listen on"),
        ("GRANTONCE_STRIPE_API_KEY", "sk_live_1", "is a live key, but GRANTONCE_LIVEMODE is false"),
        ("GRANTONCE_STRIPE_API_KEY", "rk_live_1", "is a live key, but GRANTONCE_LIVEMODE is false"),
    ] {
        let fault = fault_of(name, value);
        assert!(fault.starts_with(name) && fault.contains(part), "{fault}");
    }
    let test_key = enough().with("GRANTONCE_LIVEMODE", "true").with("GRANTONCE_STRIPE_API_KEY", "sk_test_1");
    assert!(faults(Role::Api, &test_key)[0].contains("is a test key, but GRANTONCE_LIVEMODE is true"));
}

#[test]
fn retry_delays_are_ascending_and_each_has_one_spelling() {
    for good in ["100ms", "24h", "1s,2s,3s,4s,5s,6s,7s,8s,9s,10s", "59s,1m"] {
        assert!(faults(Role::Worker, &enough().with("GRANTONCE_RETRY_DELAYS", good)).is_empty(), "{good}");
    }
    for bad in [
        "99ms",
        "25h",
        "1s,1s",
        "60s,1m",
        "1m,5s",
        "5",
        "s",
        "05s",
        "+5s",
        "5 s",
        "5S",
        "5s,",
        "5s,,1m",
        "1.5s",
        "99999999999999999999d",
        "18446744073709551615h",
        "1s,2s,3s,4s,5s,6s,7s,8s,9s,10s,11s",
    ] {
        assert!(fault_of("GRANTONCE_RETRY_DELAYS", bad).contains("ascending"), "{bad}");
    }
}

#[test]
fn no_fault_shows_a_secret() {
    let short_base64 = "whsec_aHVudGVyMnB3";
    for (name, value, part) in [
        ("DATABASE_URL", "mysql://u:hunter2pw@db/x", "must be a URL that begins with postgres://"),
        ("DATABASE_URL", "hunter2pw", "must be a URL"),
        ("DATABASE_URL", "postgres://u:hunter2pw@db:port/x", "a port, of host number 1, that is not a number"),
        ("AMQP_URL", "amqp:///hunter2pw", "must name a host"),
        ("AMQP_URL", "https://u:hunter2pw@mq", "must be a URL that begins with amqp:// or amqps://"),
        (
            "DATABASE_URL",
            "postgres://u:p@db/x?sslmode=require&sslpassword=hunter2pw",
            "sslpassword, which is not supported",
        ),
        (
            "DATABASE_URL",
            "postgres://u:hunter2pw@db/x?sslrootcert=/hunter2pw",
            "sslrootcert that names a file that cannot be",
        ),
        (
            "DATABASE_URL",
            "postgres://u:hunter2pw@db/x?sslrootcert=/",
            "sslrootcert that names a file that cannot be read (it is no",
        ),
        ("GRANTONCE_MANAGEMENT_URL", "ftp://u:hunter2pw@mq", "must be a URL"),
        ("GRANTONCE_MANAGEMENT_URL", "http://u:hunter2pw@mq:0", "must have a port from 1 to 65535"),
        ("GRANTONCE_MANAGEMENT_URL", "http://u:hunter2pw@mq:port", "must be a URL (invalid port number)"),
        ("GRANTONCE_MANAGEMENT_URL", "http://mq/?hunter2pw", "must not have a ? or a #"),
        ("GRANTONCE_MANAGEMENT_URL", "http://mq#hunter2pw", "must not have a ? or a #"),
        ("GRANTONCE_MANAGEMENT_URL", "http://u:hunter2pw%ff@mq", "a user or password that is not UTF-8"),
        ("GRANTONCE_MANAGEMENT_URL", "http://u:12/hunter2pw@mq", "must not have an @ after the host"),
        ("GRANTONCE_MANAGEMENT_URL", "http://u:hunter 2pw@mq", "must not have blanks"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:hunter2pw@collector", "must not have a user or a password"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://u:hunter2pw@collector", "must be a URL that begins with"),
        ("GRANTONCE_STRIPE_API_BASE", "https://u:hunter2pw@api.stripe.com", "must not have a user or a password"),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789abcdef,hunter2pw", "entry 2 must be 16 characters"),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789abcdef,", "entry 2 is empty"),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", "whsec_hunter2pw hunter2pw", "entry 1 has a blank"),
        ("GRANTONCE_STANDARD_WEBHOOK_SECRETS", short_base64, "24 to 64 bytes in base64"),
        ("GRANTONCE_STANDARD_WEBHOOK_SECRETS", "hunter2pw!", "24 to 64 bytes in base64"),
        ("GRANTONCE_ADYEN_HMAC_KEYS", "hunter2pw", "32 or more hexadecimal digits"),
        ("GRANTONCE_API_TOKENS", "hunter2pwhunter2pw", "entry 1 must be name:token"),
        ("GRANTONCE_API_TOKENS", "shop:hunter2pw", "entry 1 has a token that must be 16 characters"),
        ("GRANTONCE_API_TOKENS", "hunter2pw Shop:0123456789abcdef", "entry 1 has a name that is not"),
        ("GRANTONCE_API_TOKENS", "a:hunter2pwhunter2pw,a:0123456789abcdef", "has the name a twice"),
        ("GRANTONCE_API_TOKENS", "a:hunter2pwhunter2pw,b:hunter2pwhunter2pw", "one token under two names"),
        ("GRANTONCE_STATUS_TOKEN_KEY", "hunter2pw", "must be 32 characters"),
        ("GRANTONCE_PAYPAL_CLIENT_SECRET", "hunter2pw", "come together"),
        ("GRANTONCE_STRIPE_API_KEY", "sk_live_hunter2pw", "is a live key"),
    ] {
        // The value may cause more than one fault. None of them may show it.
        let environment = enough().with(name, value);
        let config = Config::<AllConfig>::from_env(&environment);
        let told = config.as_ref().unwrap_err().to_string();
        assert!(told.contains(part), "{name}={value}: {told}");
        for text in [told, format!("{config:?}"), format!("{environment:?}")] {
            assert!(!text.contains("hunter2pw") && !text.contains(short_base64), "{name}: {text}");
        }
    }
    let shown = format!("{:?}", Config::<AllConfig>::from_env(&enough()).unwrap());
    assert!(!shown.contains("hunter2pw") && !shown.contains(TOKEN), "{shown}");
}

#[test]
fn all_faults_come_at_once() {
    let environment: Environment =
        [("GRANTONCE_WORKERS", "many"), ("GRANTONCE_PREFETCH", "9"), ("GRANTONCE_TYPO", "1")].into_iter().collect();
    let told = Config::<WorkerConfig>::from_env(&environment).unwrap_err().to_string();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 1 + 6, "{told}");
    assert!(lines[0].starts_with("6 faults in the configuration of worker"), "{told}");
    let names =
        ["DATABASE_URL", "AMQP_URL", "GRANTONCE_LIVEMODE", "GRANTONCE_WORKERS", "GRANTONCE_PREFETCH", "GRANTONCE_TYPO"];
    for (line, name) in lines[1..].iter().zip(names) {
        assert!(line.trim_start().starts_with(name), "{line}");
    }
}

#[test]
fn an_unknown_name_is_a_fault_with_the_nearest_known_one() {
    for (name, part) in [
        ("GRANTONCE_LIVEMOD", "did you mean GRANTONCE_LIVEMODE?"),
        ("GRANTONCE_BATCHMAX", "did you mean GRANTONCE_BATCH_MAX?"),
        ("GRANTONCE_STRIPE_WEBHOOK_SECRET", "did you mean GRANTONCE_STRIPE_WEBHOOK_SECRETS?"),
        ("GRANTONCE_STATUS_TOKEN_KEYFILE", "did you mean GRANTONCE_STATUS_TOKEN_KEY_FILE?"),
        ("GRANTONCE_DATABASE_URL", "did you mean DATABASE_URL?"),
        ("GRANTONCE_AMQP_URL_FILE", "did you mean AMQP_URL_FILE?"),
        ("GRANTONCE_SOMETHING_ELSE", "grantonce --help-config lists"),
        ("GRANTONCE_WORKERS_FILE", "only secrets come as files; set GRANTONCE_WORKERS"),
        ("GRANTONCE_RECEIVER_PORT", "is unknown"),
        ("GRANTONCE_", "is unknown"),
    ] {
        let fault = fault_of(name, "8080");
        assert!(fault.starts_with(name) && fault.contains(part), "{fault}");
    }
}

#[test]
fn a_secret_may_come_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let good = file("good", b"postgres://u:from-file@db/x\r\n");
    let from_file = without("DATABASE_URL").with("DATABASE_URL_FILE", &good);
    let read = all(&from_file).worker.database.url.current();
    assert_eq!(read.password.as_ref().unwrap().expose_secret(), "from-file");

    // The same variable is set in two ways.
    let both = faults(Role::All, &enough().with("DATABASE_URL_FILE", &good));
    assert!(both.len() == 1 && both[0].contains("DATABASE_URL and DATABASE_URL_FILE are both set"), "{both:?}");

    for (path, part) in [
        (file("empty", b"\n"), "DATABASE_URL_FILE names a file that is empty"),
        (file("wrong", b"hunter2pw"), "DATABASE_URL_FILE must be a URL"),
        (file("binary", b"\xff\xfe"), "cannot be read"),
        (file("large", &[b'x'; 64 * 1024 + 1]), "is above 65536 bytes"),
        ("/hunter2pw".to_owned(), "cannot be read"),
        (folder.path().to_str().unwrap().to_owned(), "cannot be read"),
    ] {
        let told = faults(Role::All, &without("DATABASE_URL").with("DATABASE_URL_FILE", &path));
        assert!(told.len() == 1 && told[0].contains(part) && !told[0].contains("hunter2pw"), "{told:?}");
    }

    // Both forms of the variable are not UTF-8.
    for name in ["DATABASE_URL", "DATABASE_URL_FILE", "GRANTONCE_ADYEN_HMAC_KEYS_FILE"] {
        let told = faults(Role::All, &without("DATABASE_URL").with_not_utf8(name));
        assert!(told.iter().any(|fault| fault.starts_with(&format!("{name} is not UTF-8"))), "{name}: {told:?}");
    }

    // The receiver never opens the file with the database's secret.
    let absent = without("DATABASE_URL").with("DATABASE_URL_FILE", "/not/mounted/here");
    assert!(faults(Role::Receiver, &absent).is_empty());
}

#[test]
fn a_default_gives_way_to_either_form() {
    let set = Environment::default().with("A", "1").with("B_FILE", "2").with("C", " ");
    let environment = set.with_default("A", "x").with_default("B", "x").with_default("C", "x");
    assert_eq!((environment.get("A"), environment.get("B"), environment.get("C")), (Some("1"), None, Some("x")));
}

#[test]
fn the_table_is_sound() {
    let mut names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let help = help();
    for variable in VARIABLES {
        assert!(help.contains(&format!("\n  {}", variable.name)), "{}", variable.name);
        assert!(!variable.example.is_empty() && !variable.meaning.is_empty(), "{}", variable.name);
        assert!(variable.required_by.iter().all(|role| variable.roles.contains(role)), "{}", variable.name);
        assert!(!variable.is_secret || variable.default == DefaultValue::Unset, "{}", variable.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "no name is there twice");
}
