//! `deploy/postgres-roles.sql` on a database of the test's own. Roles belong to the whole server, so each run's have an
//! ending of their own.

use super::{server, unique, with_cleanup};
use grantonce::domain::{
    AccountId, CaptureState, Currency, DisputePolicy, Hint, LetterId, MessageId, Money, OrderId, Outlook, PaymentEvent,
    PaymentId, PaymentStatus, Provider, Reason, Refusal, Verdict,
};
use grantonce::store::{
    Activity, Actor, Amended, Amendment, Asked, Attach, BatchTerms, BrokenInvariant, ClaimTerms, ExplainTerms,
    Forgetting, HandedOut, IdempotencyKey, Kept, LetterFilter, Looked, MessageNote, NewLetter, NewOrder, NewReplay,
    Notebook, Noted, Outcome, Profile, ReplayPace, Role, Said, Sent, Settings, Store, Wanted, Weight, migrate,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);
const ROLES: [&str; 8] = [
    "grantonce_migrate",
    "grantonce_worker",
    "grantonce_api",
    "grantonce_reconciler",
    "grantonce_ops",
    "grantonce_operator",
    "grantonce_verify",
    "grantonce_reporting",
];

/// What the deployment's administrator has.
struct Deployment {
    administrator: PgConnectOptions,
    script: String,
    /// Ends the names of roles and of the database.
    ending: String,
    password: String,
}

impl Deployment {
    fn new() -> Self {
        let ending = unique();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres-roles.sql");
        let script = ROLES.iter().fold(std::fs::read_to_string(path).unwrap(), |script, role| {
            script.replace(role, &format!("{role}_{ending}"))
        });
        let administrator = PgConnectOptions::from_str(&server("DATABASE_URL")).unwrap().disable_statement_logging();
        Self { administrator, script, password: unique(), ending }
    }

    fn database(&self) -> String {
        format!("grantonce_rights_{}", self.ending)
    }

    async fn on_the_server(&self, statement: &str) {
        let mut connection = self.administrator.connect().await.unwrap();
        run(&mut connection, statement).await.unwrap();
    }

    async fn as_administrator(&self) -> PgConnection {
        self.administrator.clone().database(&self.database()).connect().await.unwrap()
    }

    async fn run_script(&self) {
        run(&mut self.as_administrator().await, &self.script).await.unwrap();
    }

    fn options_of(&self, role: &str) -> PgConnectOptions {
        let user = format!("{role}_{}", self.ending);
        self.administrator.clone().database(&self.database()).username(&user).password(&self.password)
    }

    fn store(&self, role: &str, profile: Profile) -> Store {
        Store::new(&Settings {
            url: self.url(role).into(),
            connections_max: 2,
            deadline: Duration::from_secs(20),
            profile,
        })
        .unwrap()
    }

    fn url(&self, role: &str) -> String {
        self.options_of(role).to_url_lossy().to_string()
    }

    async fn set_up(&self) {
        self.on_the_server(&format!("CREATE DATABASE {} TEMPLATE template0", self.database())).await;
        self.run_script().await;
        for role in ROLES {
            self.on_the_server(&format!("ALTER ROLE {role}_{} PASSWORD '{}'", self.ending, self.password)).await;
        }
        migrate(&self.url("grantonce_migrate").into()).await.unwrap();
        self.run_script().await;
    }

    async fn remove(&self) {
        self.on_the_server(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database())).await;
        for role in ROLES {
            self.on_the_server(&format!("DROP ROLE IF EXISTS {role}_{}", self.ending)).await;
        }
    }
}

async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(drop)
}

/// The SQLSTATE that a statement is refused with.
async fn refusal(connection: &mut PgConnection, statement: &str) -> Option<String> {
    match run(connection, statement).await {
        Ok(()) => None,
        Err(sqlx::Error::Database(error)) => error.code().map(|code| code.into_owned()),
        Err(other) => panic!("{statement}: {other}"),
    }
}

async fn on_a_deployment(test: impl AsyncFnOnce(&Deployment)) {
    let deployment = Deployment::new();
    let steps = async {
        deployment.set_up().await;
        test(&deployment).await;
    };
    with_cleanup(steps, deployment.remove()).await;
}

fn usd(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::new("USD").unwrap()).unwrap()
}

fn new_order() -> NewOrder {
    NewOrder {
        id: OrderId(uuid::Uuid::now_v7()),
        account_id: AccountId::new("buyer").unwrap(),
        credits: 100,
        price: usd(1999),
        provider: Provider::STRIPE,
        provider_account: None,
        payment_id: Some(PaymentId::new("pi_1").unwrap()),
        metadata: serde_json::json!({}),
        now: NOW,
        first_look_at: NOW + time::Duration::minutes(2),
    }
}

fn event(id: &str, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::{id}")).unwrap(),
        payment_id: PaymentId::new("pi_1").unwrap(),
        related_ids: vec![PaymentId::new("cs_1").unwrap()],
        provider_account: None,
        order_id: None,
        status,
        occurred_at: NOW,
        livemode: true,
    }
}

/// An order of 29.99 made by the API, and amended to 19.99 by an operator.
async fn make_and_amend_an_order(on: &Deployment) {
    let api = on.store("grantonce_api", Profile::Requests);
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "2".to_owned(), request_digest: [0; 32] };
    let new = NewOrder { price: usd(2999), payment_id: Some(PaymentId::new("pi_2").unwrap()), ..new_order() };
    let order_id = new.id;
    assert!(matches!(api.attach_order(key, new).await.unwrap(), Attach::Created(_)));
    let amendment = Amendment {
        order_id,
        price: usd(1999),
        dispute_policy: DisputePolicy::Hold,
        by: Actor { name: "ada".to_owned(), is_self_declared: true },
        reason: "tax".to_owned(),
        now: NOW,
    };
    // And one whose payment the API creates.
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "3".to_owned(), request_digest: [0; 32] };
    let new = NewOrder { payment_id: None, ..new_order() };
    let paid_for = new.id;
    assert!(matches!(api.attach_order(key, new).await.unwrap(), Attach::Created(_)));
    assert!(api.begin_attempt(paid_for, 1, vec![], NOW).await.unwrap());
    api.burn_attempt(paid_for, 1).await.unwrap();
    let seen = api.creation(paid_for).await.unwrap().unwrap().attempts;
    assert!(api.begin_attempt(paid_for, 2, seen, NOW).await.unwrap());
    let made = HandedOut { payment_id: PaymentId::new("pi_3").unwrap(), client_secret: None, approve_url: None };
    assert_eq!(api.keep_payment(paid_for, 2, made.clone(), NOW, NOW).await.unwrap(), Kept::HandedOut(made));

    let operator = on.store("grantonce_operator", Profile::Requests);
    let amended = operator.amend_order(amendment).await.unwrap();
    assert!(matches!(amended, Amended::Written { version: 2, .. }), "{amended:?}");
}

/// A look that the API makes due and a reconciler takes, and one that only a hint asks for.
async fn ask_about_an_order(on: &Deployment) {
    let api = on.store("grantonce_api", Profile::Requests);
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "4".to_owned(), request_digest: [0; 32] };
    let new = NewOrder { payment_id: Some(PaymentId::new("pi_4").unwrap()), ..new_order() };
    let id = new.id;
    assert!(matches!(api.attach_order(key, new).await.unwrap(), Attach::Created(_)));
    assert_eq!(api.want_look(id, NOW).await.unwrap(), Some(Wanted::Due));

    let reconciler = on.store("grantonce_reconciler", Profile::Requests);
    let hint = Hint {
        provider: Provider::STRIPE,
        message_id: MessageId::new("stripe::evt_9").unwrap(),
        payment_id: PaymentId::new("pi_9").unwrap(),
        related_ids: vec![],
        provider_account: None,
        livemode: true,
    };
    reconciler.want_looks(vec![hint], NOW).await.unwrap();
    let terms = ClaimTerms { provider: Provider::STRIPE, per_s_max: 9, lease: Duration::from_secs(60), now: NOW };
    let due = reconciler.claim_looks(terms).await.unwrap();
    assert_eq!(due.len(), 3, "with the one whose payment was created: {due:?}");
    for look in due {
        let looked = Looked::Answered { said: Said::Unpaid, next_at: None, wanted_at: NOW };
        reconciler.finish_look(look, looked, NOW).await.unwrap();
    }
}

/// An order made by the API and paid through the worker, each with its own rights.
async fn make_and_pay_an_order(on: &Deployment) {
    let api = on.store("grantonce_api", Profile::Requests);
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "1".to_owned(), request_digest: [0; 32] };
    assert!(matches!(api.attach_order(key.clone(), new_order()).await.unwrap(), Attach::Created(_)));
    assert!(matches!(api.attach_order(key, new_order()).await.unwrap(), Attach::Replayed(_)));

    let captured = PaymentStatus::Captured { money: usd(1999), capture_id: None, state: CaptureState::Succeeded };
    let events = [
        event("evt_1", captured.clone()),
        event("evt_1", captured),
        event("evt_2", PaymentStatus::RefundedTotal { money: usd(1000) }),
    ];
    let worker = on.store("grantonce_worker", Profile::Batches);
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: NOW };
    let applied = worker.apply(Arc::new(events), terms).await.unwrap();
    assert_eq!(
        applied.outcomes,
        [Outcome::Applied { granted: true }, Outcome::Duplicate, Outcome::Applied { granted: false }]
    );
    worker.maintain_inbox(NOW, time::Duration::days(90)).await.unwrap();
    let notebook = Notebook::default();
    let copy = MessageNote::new(&event("evt_1", PaymentStatus::Canceled), Noted::Copy);
    for _ in 0..2 {
        notebook.note(Activity { applied: 1, ..Activity::default() }, vec![copy.clone()], NOW);
        notebook.write(&worker).await;
    }
    assert_eq!(worker.activity(NOW - time::Duration::minutes(1)).await.unwrap()[0].applied, 2);
    worker.maintain_notes(NOW, time::Duration::days(90)).await.unwrap();
}

/// A story with a row of every table in it, read by whoever may read stories.
async fn tell_a_story(on: &Deployment) {
    run(
        &mut on.as_administrator().await,
        "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin,
             attempts, provider, payment_id, state_at, first_seen_at, last_seen_at)
         VALUES (gen_random_uuid(), 'stripe::x', '', '', '{}', 'x', 1, 'malformed', '', '', 'worker', 1, 'stripe', 'pi_1', now(),
                 now(), now());
         INSERT INTO replays (created_at, actor, is_self_declared, reason, selection, per_s_max, pace, state, letters, busy_until)
         VALUES (now(), 'bob', true, 'tax', '{}', 1, 'steady', 'finished', 1, now());
         INSERT INTO replay_letters SELECT r.id, 1, l.id, 1, 'resolved', now(), now(), now() FROM replays r, dead_letters l;",
    )
    .await
    .unwrap();
    let verify = on.store("grantonce_verify", Profile::Audit);
    let terms = ExplainTerms { now: NOW, dispute_policy: DisputePolicy::Hold, orders_max: 50, entries_max: 500 };
    let story = verify.explain(Asked::new("pi_1", None).unwrap(), terms).await.unwrap().unwrap();
    let kinds: BTreeSet<_> = story.entries.iter().map(|entry| entry.what.kind()).collect();
    for kind in ["message_admitted", "credits_granted", "letter_received", "letter_replayed", "provider_asked"] {
        assert!(kinds.contains(kind), "{kind}: {story:#?}");
    }
    assert!(story.entries.iter().any(|entry| entry.text.contains("2 copies")), "{story:#?}");
    for id in ["stripe::evt_1", "buyer"] {
        assert!(verify.explain(Asked::new(id, None).unwrap(), terms).await.unwrap().is_some(), "{id}");
    }
}

/// A letter is kept, weighed, replayed, found out about, archived, restored and, another one, deleted.
async fn work_on_a_letter(on: &Deployment) {
    let ops = on.store("grantonce_ops", Profile::Requests);
    let id = LetterId("5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f".parse().unwrap());
    let letter = NewLetter {
        id,
        message_id: "stripe::evt_9".to_owned(),
        kind: "payment-status.v1".to_owned(),
        routing_key: "payment.stripe".to_owned(),
        headers: serde_json::json!({}),
        body: b"x".to_vec(),
        body_bytes: 1,
        reason: Reason::Malformed,
        cause: "x".to_owned(),
        detail: "x".to_owned(),
        origin: "worker",
        attempts: 1,
        replay: 0,
        provider: Some(Provider::STRIPE),
        payment_id: None,
        order_id: None,
        said: None,
    };
    ops.keep_letters(vec![letter], NOW).await.unwrap();
    let by = || Actor { name: "ada".to_owned(), is_self_declared: false };
    let refused = || Verdict::WouldBeRefused(Refusal::new(Reason::Malformed, "x"));
    assert!(!ops.letters_to_weigh(NOW, 10).await.unwrap().is_empty());
    let weight = || Weight { id, outlook: Outlook::new(vec![refused()]), order: None };
    ops.note_weights(vec![weight()], NOW).await.unwrap();
    let event = event("evt_1", PaymentStatus::Canceled);
    assert_eq!(ops.weigh([event].into(), DisputePolicy::Hold).await.unwrap().len(), 1);
    let replay = NewReplay {
        letters: vec![id],
        selection: LetterFilter::default(),
        per_s_max: 10,
        pace: ReplayPace::Canary,
        by: by(),
        reason: "a test".to_owned(),
        now: NOW,
    };
    let begun = ops.begin_replay(replay).await.unwrap().unwrap();
    assert_eq!(ops.claim_replay(begun.id, Duration::from_secs(1), NOW).await.unwrap().len(), 1);
    ops.note_sent(vec![(id, 1, Sent::Confirmed)], NOW).await.unwrap();
    assert!(ops.cancel_replay(begun.id, by(), "enough".to_owned(), NOW).await.unwrap().is_some());
    ops.end_replays(NOW + time::Duration::DAY, NOW).await.unwrap();
    assert!(ops.replay(begun.id).await.unwrap().unwrap().ended_at.is_some());
    let this = || LetterFilter { ids: Some(vec![id.0]), ..LetterFilter::default() };
    assert_eq!(ops.archive_letters(this(), by(), "x".to_owned(), NOW).await.unwrap(), 1);
    assert_eq!(ops.restore_letters(this(), by(), "x".to_owned(), NOW).await.unwrap(), 1);
    assert_eq!(ops.archive_letters(this(), by(), "x".to_owned(), NOW).await.unwrap(), 1);
    assert_eq!(ops.expire_letters(NOW + time::Duration::DAY, NOW).await.unwrap(), 1);
    assert_eq!(ops.open_letters(NOW).await.unwrap().by_reason.len(), 1);
    ops.activity(NOW).await.unwrap();
    assert!(ops.letter_groups(LetterFilter::default()).await.unwrap().len() == 1);
    let terms = ExplainTerms { now: NOW, dispute_policy: DisputePolicy::Hold, orders_max: 50, entries_max: 500 };
    for id in ["pi_1", "buyer"] {
        assert!(ops.explain(Asked::new(id, None).unwrap(), terms).await.unwrap().is_some(), "{id}");
    }
}

/// The buyer is forgotten by the operator, who can read nothing of what is emptied.
async fn forget_the_buyer(on: &Deployment) {
    run(&mut on.as_administrator().await, "UPDATE orders SET metadata = '{\"name\": \"somebody\"}'").await.unwrap();
    let operator = on.store("grantonce_operator", Profile::Requests);
    let forgetting = Forgetting {
        account: AccountId::new("buyer").unwrap(),
        for_real: true,
        by: Actor { name: "ada".to_owned(), is_self_declared: true },
        reason: "a request".to_owned(),
        now: NOW,
    };
    let forgotten = operator.forget_account(forgetting).await.unwrap().unwrap();
    assert_eq!((forgotten.orders, forgotten.letters_left), (forgotten.orders_seen, 1), "{forgotten:?}");
}

#[tokio::test]
async fn each_role_has_what_it_needs() {
    on_a_deployment(async |on| {
        for (role, user, profile) in [
            (Role::Worker, "grantonce_worker", Profile::Batches),
            (Role::Api, "grantonce_api", Profile::Requests),
            (Role::Reconciler, "grantonce_reconciler", Profile::Requests),
            (Role::Ops, "grantonce_ops", Profile::Requests),
            (Role::Operator, "grantonce_operator", Profile::Requests),
            (Role::Verify, "grantonce_verify", Profile::Audit),
        ] {
            assert_eq!(on.store(user, profile).check(role).await.unwrap(), [], "{user}");
        }
        let faults = on.store("grantonce_verify", Profile::Requests).check(Role::Operator).await.unwrap();
        let missing = |right: &str| faults.iter().any(|fault| fault.fault.contains(right));
        assert!(missing("UPDATE on orders.amount_minor") && missing("INSERT on audit_log"), "{faults:?}");
        make_and_pay_an_order(on).await;
        make_and_amend_an_order(on).await;
        ask_about_an_order(on).await;
        tell_a_story(on).await;
        work_on_a_letter(on).await;
        forget_the_buyer(on).await;

        let api = on.store("grantonce_api", Profile::Requests);
        let buyer = AccountId::new("buyer").unwrap();
        assert_eq!(api.balance(buyer).await.unwrap().credits, 49);
        let verify = on.store("grantonce_verify", Profile::Audit);
        assert_eq!(verify.verify(DisputePolicy::Hold).await.unwrap(), Vec::<BrokenInvariant>::new());

        let mut reporting = on.options_of("grantonce_reporting").connect().await.unwrap();
        for allowed in [
            "SELECT account_id, status, credits_granted FROM orders",
            "SELECT * FROM account_balances",
            "SELECT * FROM credit_grants",
            "SELECT * FROM credit_adjustments",
            "SELECT * FROM audit_log",
            "SELECT * FROM activity",
        ] {
            assert_eq!(refusal(&mut reporting, allowed).await, None, "{allowed}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_role_has_more() {
    on_a_deployment(async |on| {
        make_and_pay_an_order(on).await;
        // What was handed out by hand goes with the next run of the script.
        let by_hand =
            format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO grantonce_worker_{0}, grantonce_api_{0}, grantonce_operator_{0}", on.ending);
        run(&mut on.as_administrator().await, &by_hand).await.unwrap();
        on.run_script().await;

        const GRANT: &str = "INSERT INTO credit_grants VALUES (gen_random_uuid(), 'me', 1, 'm', now())";
        let rows: [(&str, &[&str]); 8] = [
            (
                "grantonce_worker",
                &[
                    "UPDATE credit_grants SET credits = 1",
                    "DELETE FROM credit_grants",
                    "TRUNCATE credit_grants",
                    "SELECT * FROM credit_grants",
                    "UPDATE credit_adjustments SET credits = 1",
                    "DELETE FROM credit_adjustments",
                    "TRUNCATE credit_adjustments",
                    "ALTER TABLE credit_grants DISABLE TRIGGER append_only",
                    "DROP TABLE inbox_other",
                    "UPDATE inbox SET message_id = 'x'",
                    "DELETE FROM inbox",
                    "DELETE FROM inbox_other",
                    "INSERT INTO audit_log (at, actor, is_self_declared, action, subject) VALUES (now(), 'a', true, 'b', 'c')",
                    "UPDATE payments SET payment_id = 'x'",
                    "DELETE FROM payments",
                    "INSERT INTO orders SELECT * FROM orders",
                    "DELETE FROM orders",
                    "SELECT * FROM idempotency_keys",
                    "DELETE FROM message_notes",
                    "DELETE FROM activity",
                    "SELECT forget_account('buyer', gen_random_uuid(), 1, true, now())",
                    "DELETE FROM _sqlx_migrations",
                    "CREATE TABLE mine (n int)",
                    "CREATE TEMP TABLE inbox_other (n int)",
                ],
            ),
            (
                "grantonce_api",
                &[
                    GRANT,
                    "INSERT INTO credit_adjustments VALUES (gen_random_uuid(), 1, 'me', 1, 'r', 'm', now())",
                    "UPDATE orders SET status = 'fulfilled'",
                    "SELECT id FROM orders FOR UPDATE",
                    "DELETE FROM payments",
                    "UPDATE idempotency_keys SET key = 'x'",
                    "SELECT * FROM inbox",
                    "SELECT inbox_maintain('2026-01-01', 1)",
                    "DELETE FROM provider_looks",
                    "SELECT * FROM provider_pace",
                    "CREATE TEMP TABLE orders (n int)",
                ],
            ),
            (
                "grantonce_reconciler",
                &[
                    GRANT,
                    "UPDATE orders SET status = 'fulfilled'",
                    "SELECT id FROM orders FOR UPDATE",
                    "SELECT account_id FROM orders",
                    "INSERT INTO payments SELECT * FROM payments",
                    "SELECT * FROM inbox",
                    "SELECT * FROM payment_attempts",
                    "CREATE TEMP TABLE orders (n int)",
                ],
            ),
            (
                "grantonce_ops",
                &[
                    GRANT,
                    "UPDATE orders SET status = 'fulfilled'",
                    "SELECT id FROM orders FOR UPDATE",
                    "SELECT metadata FROM orders",
                    "SELECT client_secret FROM payment_attempts",
                    "INSERT INTO payments SELECT * FROM payments",
                    "INSERT INTO inbox SELECT * FROM inbox",
                    "UPDATE provider_looks SET due_at = now()",
                    "UPDATE audit_log SET reason = 'x'",
                    "DELETE FROM audit_log",
                    "DELETE FROM replays",
                    "SELECT * FROM idempotency_keys",
                    "SELECT forget_account('buyer', gen_random_uuid(), 1, true, now())",
                    "CREATE TEMP TABLE orders (n int)",
                ],
            ),
            (
                "grantonce_operator",
                &[
                    GRANT,
                    "INSERT INTO credit_adjustments VALUES (gen_random_uuid(), 1, 'me', 1, 'r', 'm', now())",
                    "UPDATE orders SET is_granted = true",
                    "UPDATE orders SET credits = 1000000",
                    "UPDATE orders SET account_id = 'me'",
                    "UPDATE orders SET facts = '{}'",
                    "UPDATE orders SET amount_minor = 1", // one is granted
                    "INSERT INTO orders SELECT * FROM orders",
                    "DELETE FROM orders",
                    "SELECT metadata FROM orders",
                    "UPDATE orders SET metadata = '{}'",
                    "SELECT body FROM dead_letters",
                    "UPDATE dead_letters SET body = NULL",
                    "SELECT client_secret FROM payment_attempts",
                    "SELECT * FROM payments",
                    "SELECT * FROM inbox",
                    "UPDATE audit_log SET reason = 'x'",
                    "DELETE FROM audit_log",
                    "TRUNCATE audit_log",
                    "ALTER TABLE audit_log DISABLE TRIGGER append_only",
                    "CREATE TEMP TABLE orders (n int)",
                ],
            ),
            (
                "grantonce_verify",
                &[
                    GRANT,
                    "UPDATE orders SET credits = 1",
                    "SELECT metadata FROM orders",
                    "SELECT body FROM dead_letters",
                    "SELECT headers FROM dead_letters",
                    "SELECT client_secret FROM payment_attempts",
                    "SELECT approve_url FROM payment_attempts",
                    "SELECT selection FROM replays",
                    "SELECT * FROM idempotency_keys",
                    "SELECT forget_account('buyer', gen_random_uuid(), 1, true, now())",
                    "SELECT notes_maintain(now(), 1)",
                ],
            ),
            (
                "grantonce_reporting",
                &[
                    GRANT,
                    "SELECT facts FROM orders",
                    "SELECT metadata FROM orders",
                    "SELECT * FROM payments",
                    "SELECT * FROM message_notes",
                    "SELECT * FROM dead_letters",
                    "SELECT * FROM idempotency_keys",
                    "SELECT inbox_maintain('2026-01-01', 1)",
                ],
            ),
            // The owner too: the trigger holds where rights do not.
            (
                "grantonce_migrate",
                &[
                    "UPDATE credit_grants SET credits = 1",
                    "DELETE FROM credit_grants",
                    "TRUNCATE credit_grants",
                    "DELETE FROM credit_adjustments",
                    "DELETE FROM audit_log",
                    "TRUNCATE audit_log",
                    "UPDATE orders SET amount_minor = 1",
                ],
            ),
        ];
        for (role, statements) in rows {
            let mut connection = on.options_of(role).connect().await.unwrap();
            for statement in statements {
                let code = refusal(&mut connection, statement).await;
                assert_eq!(code.as_deref(), Some("42501"), "{role}: {statement}");
            }
            connection.close().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn it_is_rights_and_not_the_trigger_alone_that_guard_the_ledger() {
    on_a_deployment(async |on| {
        for role in
            ["grantonce_worker", "grantonce_api", "grantonce_operator", "grantonce_verify", "grantonce_reporting"]
        {
            for table in ["credit_grants", "credit_adjustments", "audit_log"] {
                let may_change: bool =
                    sqlx::query_scalar("SELECT has_table_privilege($1, $2, 'UPDATE, DELETE, TRUNCATE')")
                        .bind(format!("{role}_{}", on.ending))
                        .bind(table)
                        .fetch_one(&mut on.as_administrator().await)
                        .await
                        .unwrap();
                assert!(!may_change, "{role} may change {table}");
            }
        }
    })
    .await;
}

/// `inbox_maintain` runs with its owner's rights: what a caller puts in the place of its tables must not run with them.
#[tokio::test]
async fn a_callers_temporary_tables_do_not_fool_the_inboxs_maintenance() {
    on_a_deployment(async |on| {
        make_and_pay_an_order(on).await;
        // As in a deployment that took only some of the script.
        let public = format!("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", on.database());
        run(&mut on.as_administrator().await, &public).await.unwrap();

        let mut worker = on.options_of("grantonce_worker").connect().await.unwrap();
        run(
            &mut worker,
            "CREATE TEMP TABLE inbox_other (event_day date, message_id text, fact_digest bytea, order_id uuid, admitted_at timestamptz);
             CREATE FUNCTION pg_temp.steal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 ALTER TABLE public.credit_grants DISABLE TRIGGER append_only;
                 DELETE FROM public.credit_grants;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER steal BEFORE DELETE ON inbox_other FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.steal();
             GRANT ALL ON inbox_other TO PUBLIC;
             SELECT * FROM inbox_maintain('2026-01-05', 90);",
        )
        .await
        .unwrap();
        let grants: i64 = sqlx::query_scalar("SELECT count(*) FROM credit_grants")
            .fetch_one(&mut on.as_administrator().await)
            .await
            .unwrap();
        assert_eq!(grants, 1, "the ledger is as it was");
    })
    .await;
}
