-- Who may do what in the database. Run it in grantonce's database, as a superuser:
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deploy/postgres-roles.sql     -- the roles
--     grantonce migrate                                                        -- as grantonce_migrate
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deploy/postgres-roles.sql     -- their rights
--
-- and again after every upgrade that migrates. It can be run as often as you like: what a role has beyond this file is
-- taken away. It sets no passwords; do that by `\password grantonce_worker` and so on, or let pg_hba.conf decide.
--
--   grantonce_migrate    `grantonce migrate`: owns the schema; no other role may change it
--   grantonce_worker     `grantonce worker`: the only one that writes the ledger, and it can only append
--   grantonce_api        `grantonce api`: makes orders, reads balances
--   grantonce_reconciler `grantonce reconciler`: keeps count of what providers were asked about; changes no order
--   grantonce_ops        `grantonce ops`, `grantonce dlq`: keeps and replays dead letters; changes no order
--   grantonce_operator   `grantonce orders amend`, `forget`: changes what an order costs before its grant, empties what is kept
--                        of an account's buyers, and writes the audit log
--   grantonce_verify     `grantonce verify`, `explain`, `check`: reads all that is told of orders, and nothing personal
--   grantonce_reporting  people and dashboards: orders and ledger, without payments' facts
--
-- The receiver has no business here. What each role needs is what `grantonce check` asks for.

BEGIN;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[
        'grantonce_migrate', 'grantonce_worker', 'grantonce_api', 'grantonce_reconciler',
        'grantonce_ops', 'grantonce_operator', 'grantonce_verify', 'grantonce_reporting']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
    END LOOP;

    -- Nobody but these connects. Nobody makes temporary tables: a function that runs with its owner's rights must not meet
    -- a table that its caller put in the place of a real one.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, grantonce_migrate, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting',
                   current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO grantonce_migrate, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting',
                   current_database());
END $$;

-- Before Postgres 15 everybody may create here, and an upgrade leaves that as it was.
REVOKE ALL ON SCHEMA public FROM PUBLIC, grantonce_migrate, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;
GRANT USAGE, CREATE ON SCHEMA public TO grantonce_migrate;
GRANT USAGE ON SCHEMA public TO grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;

DO $$
DECLARE
    owner text := (SELECT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename = 'orders');
BEGIN
    IF owner IS NULL THEN
        RAISE NOTICE 'there is no schema yet: run `grantonce migrate` as grantonce_migrate, and then this file again';
        RETURN;
    END IF;
    IF owner <> 'grantonce_migrate' THEN
        RAISE WARNING 'the schema belongs to %, not to grantonce_migrate, which therefore cannot migrate it', owner;
    END IF;

    REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;

    -- Which migrations are applied: every role looks when it starts.
    GRANT SELECT ON _sqlx_migrations TO grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify;

    -- Locks and updates orders, registers payments, admits messages, and appends to the ledger, which it cannot even read.
    GRANT SELECT, UPDATE ON orders TO grantonce_worker;
    GRANT SELECT, INSERT ON payments TO grantonce_worker;
    GRANT SELECT, INSERT ON inbox TO grantonce_worker;
    GRANT INSERT ON credit_grants TO grantonce_worker;
    GRANT INSERT ON credit_adjustments TO grantonce_worker;
    -- Counts what it did, for people to look at.
    GRANT SELECT, INSERT, UPDATE ON message_notes TO grantonce_worker;
    GRANT SELECT, INSERT, UPDATE ON activity TO grantonce_worker;
    -- Make and drop the inbox's partitions, and delete old notes, with their owner's rights.
    GRANT EXECUTE ON FUNCTION inbox_maintain(date, integer) TO grantonce_worker;
    GRANT EXECUTE ON FUNCTION notes_maintain(timestamptz, integer) TO grantonce_worker;

    -- Makes orders with their payment, and reads the ledger. Once made, an order is the worker's.
    GRANT SELECT, INSERT ON orders TO grantonce_api;
    GRANT SELECT, INSERT ON payments TO grantonce_api;
    GRANT SELECT, INSERT ON idempotency_keys TO grantonce_api;
    GRANT SELECT, INSERT, UPDATE ON payment_attempts TO grantonce_api;
    GRANT SELECT, INSERT, UPDATE ON provider_looks TO grantonce_api;
    GRANT SELECT ON account_balances TO grantonce_api;
    GRANT SELECT ON credit_grants TO grantonce_api;
    GRANT SELECT ON credit_adjustments TO grantonce_api;

    -- Keeps count of what was asked; of orders it sees how they stand, and not for whom or how much.
    GRANT SELECT (id, status, price_terms, created_at) ON orders TO grantonce_reconciler;
    GRANT SELECT ON payments TO grantonce_reconciler;
    GRANT SELECT, INSERT, UPDATE, DELETE ON provider_looks TO grantonce_reconciler;
    GRANT SELECT, INSERT, UPDATE ON provider_pace TO grantonce_reconciler;

    -- Keeps letters and sends them back to work. What they would come to it sees at the orders, without the site's notes about
    -- the buyer; the bodies of letters it does see.
    GRANT SELECT, INSERT, UPDATE, DELETE ON dead_letters TO grantonce_ops;
    GRANT SELECT, INSERT, UPDATE ON replays TO grantonce_ops;
    GRANT SELECT, INSERT, UPDATE ON replay_letters TO grantonce_ops;
    GRANT SELECT (id, account_id, credits, amount_minor, currency, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, facts, created_at, updated_at) ON orders TO grantonce_ops;
    GRANT SELECT (order_id, number, first_sent_at, last_sent_at, is_burnt, payment_id) ON payment_attempts TO grantonce_ops;
    GRANT SELECT ON credit_grants TO grantonce_ops;
    GRANT SELECT ON credit_adjustments TO grantonce_ops;
    GRANT SELECT ON message_notes TO grantonce_ops;
    GRANT SELECT ON activity TO grantonce_ops;
    GRANT SELECT ON payments TO grantonce_ops;
    GRANT SELECT ON inbox TO grantonce_ops;
    GRANT SELECT ON provider_looks TO grantonce_ops;
    GRANT SELECT, INSERT ON audit_log TO grantonce_ops;

    -- Locks an order, sets what it costs, and appends who did so and why. Whoever may set a price may sell at any price:
    -- give this role to few.
    GRANT SELECT (id, account_id, credits, amount_minor, currency, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, facts) ON orders TO grantonce_operator;
    GRANT UPDATE (amount_minor, currency, status, version, updated_at) ON orders TO grantonce_operator;
    GRANT SELECT, INSERT ON audit_log TO grantonce_operator;
    -- Empties metadata and bodies with its owner's rights: the caller cannot read them.
    GRANT EXECUTE ON FUNCTION forget_account(text, uuid, integer, boolean, timestamptz) TO grantonce_operator;

    -- All that an order's story is told from. No metadata, no body, no header, nothing that a payment can be paid with.
    GRANT SELECT (id, account_id, credits, amount_minor, currency, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, facts, created_at, updated_at) ON orders TO grantonce_verify;
    GRANT SELECT ON payments TO grantonce_verify;
    GRANT SELECT (order_id, number, first_sent_at, last_sent_at, is_burnt, payment_id) ON payment_attempts TO grantonce_verify;
    GRANT SELECT ON inbox TO grantonce_verify;
    GRANT SELECT ON message_notes TO grantonce_verify;
    GRANT SELECT ON credit_grants TO grantonce_verify;
    GRANT SELECT ON credit_adjustments TO grantonce_verify;
    GRANT SELECT ON provider_looks TO grantonce_verify;
    GRANT SELECT ON audit_log TO grantonce_verify;
    GRANT SELECT (id, message_id, reason, detail, origin, attempts, provider, payment_id, order_id, said, state, state_at,
                  state_by, state_reason, first_seen_at, last_seen_at, seen, replays, verdict, verdict_detail)
        ON dead_letters TO grantonce_verify;
    GRANT SELECT (id, created_at, actor, is_self_declared, reason) ON replays TO grantonce_verify;
    GRANT SELECT (replay_id, position, letter_id, number, state, sent_at, ended_at) ON replay_letters TO grantonce_verify;

    -- Columns, so that a new one is not shown before somebody has thought about it.
    GRANT SELECT (id, account_id, credits, amount_minor, currency, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, created_at, updated_at) ON orders TO grantonce_reporting;
    GRANT SELECT ON account_balances TO grantonce_reporting;
    GRANT SELECT ON credit_grants TO grantonce_reporting;
    GRANT SELECT ON credit_adjustments TO grantonce_reporting;
    GRANT SELECT ON audit_log TO grantonce_reporting;
    GRANT SELECT ON activity TO grantonce_reporting;
END $$;

COMMIT;
