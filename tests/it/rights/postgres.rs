//! `deploy/postgres-roles.sql` on the test's own database. Roles belong to the whole server, so the role names of each run have
//! their own suffix.

mod deployment;
mod work;

use deployment::{on_a_deployment, refusal, run};
use grantonce::domain::{AccountId, DisputePolicy};
use grantonce::role::Role;
use grantonce::store::{BrokenInvariant, Profile};
use sqlx::{ConnectOptions, Connection};
use time::OffsetDateTime;
use time::macros::datetime;
use work::{
    ask_about_an_order, forget_the_buyer, make_and_amend_an_order, make_and_pay_an_order, tell_a_story,
    work_on_a_letter,
};

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

#[tokio::test]
async fn each_role_has_what_it_needs() {
    on_a_deployment(async |on| {
        for (role, user, profile) in [
            (Role::Worker, "grantonce_worker", Profile::Batches),
            (Role::Api, "grantonce_api", Profile::Requests),
            (Role::Reconciler, "grantonce_reconciler", Profile::Operations),
            (Role::Ops, "grantonce_ops", Profile::Operations),
            (Role::Orders, "grantonce_operator", Profile::Operations),
            (Role::Verify, "grantonce_verify", Profile::Audit),
        ] {
            assert_eq!(on.store(user, profile).check(role).await.unwrap().faults, [], "{user}");
        }
        let faults = on.store("grantonce_verify", Profile::Requests).check(Role::Orders).await.unwrap().faults;
        let missing = |right: &str| faults.iter().any(|fault| fault.what.contains(right));
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
        // The next run of the script revokes rights that were granted by hand.
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
                    "UPDATE orders SET is_granted = true",
                    "UPDATE orders SET credits = 1000000",
                    "UPDATE orders SET account_id = 'me'",
                    "UPDATE orders SET facts = '{}'",
                    "UPDATE orders SET price_terms = 'total'",
                    "UPDATE orders SET amount_minor = 1", // one order is granted
                    "DELETE FROM orders",
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
                    "UPDATE orders SET price_terms = 'total'",
                    "UPDATE orders SET amount_minor = 1", // one order is granted
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
            // The owner, too: the trigger holds where rights do not.
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

/// `inbox_maintain` runs with the rights of its owner. A caller's temporary tables must not run code with these rights.
#[tokio::test]
async fn a_callers_temporary_tables_do_not_fool_the_inboxs_maintenance() {
    on_a_deployment(async |on| {
        make_and_pay_an_order(on).await;
        // As in a deployment that ran only a part of the script.
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
        assert_eq!(grants, 1, "the ledger is unchanged");
    })
    .await;
}
