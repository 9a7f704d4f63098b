-- The database roles and their rights. Run this file in grantonce's database, as a superuser:
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deploy/postgres-roles.sql     -- the roles
--     grantonce migrate                                                        -- as grantonce_migrate
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deploy/postgres-roles.sql     -- their rights
--
-- Run it again after every upgrade that migrates. You can run it as often as you like: it takes away every right that is not in
-- this file. It sets no passwords. Set them with `\password grantonce_worker` and so on, or use pg_hba.conf.
--
--   grantonce_migrate    `grantonce migrate`: owns the schema; no other role may change it
--   grantonce_worker     `grantonce worker`: the only role that writes the ledger, and it can only append
--   grantonce_api        `grantonce api`: makes orders, reads balances
--   grantonce_reconciler `grantonce reconciler`: notes what providers were asked about; changes no order
--   grantonce_ops        `grantonce ops`, `grantonce dlq`: keeps and replays dead letters; changes the price of an order before
--                        its grant, and nothing else of it
--   grantonce_operator   `grantonce orders amend`, `forget`: changes the price of an order before its grant, empties the personal
--                        data of an account's buyers, and writes the audit log
--   grantonce_verify     `grantonce verify`, `explain`, `check`: reads everything about orders, and nothing personal
--   grantonce_reporting  people and dashboards: orders and ledger, without payments' facts
--
-- The receiver needs no database. `grantonce check` compares these rights with what each role needs.

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

    -- Only these roles may connect. None may make temporary tables: a function that runs with its owner's rights must not find
    -- a temporary table of its caller instead of the real one.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, grantonce_migrate, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting',
                   current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO grantonce_migrate, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting',
                   current_database());
END $$;

-- Before Postgres 15 everybody may create tables in this schema, and an upgrade of Postgres keeps that right.
REVOKE ALL ON SCHEMA public FROM PUBLIC, grantonce_migrate, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;
GRANT USAGE, CREATE ON SCHEMA public TO grantonce_migrate;
GRANT USAGE ON SCHEMA public TO grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;

DO $$
DECLARE
    owner text := (SELECT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename = 'orders');
BEGIN
    IF owner IS NULL THEN
        RAISE NOTICE 'there is no schema yet: run `grantonce migrate` as grantonce_migrate, then run this file again';
        RETURN;
    END IF;
    IF owner <> 'grantonce_migrate' THEN
        RAISE WARNING 'the schema belongs to %, not to grantonce_migrate, so grantonce_migrate cannot migrate it', owner;
    END IF;

    REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC, grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify, grantonce_reporting;

    -- Every role checks at its start which migrations are applied.
    GRANT SELECT ON _sqlx_migrations TO grantonce_worker, grantonce_api, grantonce_reconciler, grantonce_ops, grantonce_operator, grantonce_verify;

    -- The worker locks and updates orders, registers payments, admits messages, and appends to the ledger. It cannot read the ledger.
    GRANT SELECT, UPDATE ON orders TO grantonce_worker;
    GRANT SELECT, INSERT ON payments TO grantonce_worker;
    GRANT SELECT, INSERT ON inbox TO grantonce_worker;
    GRANT INSERT ON credit_grants TO grantonce_worker;
    GRANT INSERT ON credit_adjustments TO grantonce_worker;
    -- It notes orders that were paid twice, or too much.
    GRANT SELECT, INSERT, UPDATE ON overpaid_orders TO grantonce_worker;
    -- It counts what it did, for people to read.
    GRANT SELECT, INSERT, UPDATE ON message_notes TO grantonce_worker;
    GRANT SELECT, INSERT, UPDATE ON activity TO grantonce_worker;
    -- This function writes a batch, with the worker's own rights.
    GRANT EXECUTE ON FUNCTION apply_batch_v1 TO grantonce_worker;
    -- These functions create and drop the inbox's partitions and delete old notes, with their owner's rights.
    GRANT EXECUTE ON FUNCTION inbox_maintain(date, integer) TO grantonce_worker;
    GRANT EXECUTE ON FUNCTION notes_maintain(timestamptz, integer) TO grantonce_worker;

    -- The API makes orders with their payment, and reads the ledger. It cannot change an order.
    GRANT SELECT, INSERT ON orders TO grantonce_api;
    GRANT SELECT, INSERT ON payments TO grantonce_api;
    GRANT SELECT, INSERT ON idempotency_keys TO grantonce_api;
    GRANT SELECT, INSERT, UPDATE ON payment_attempts TO grantonce_api;
    GRANT SELECT, INSERT, UPDATE ON provider_looks TO grantonce_api;
    GRANT SELECT ON account_balances TO grantonce_api;
    GRANT SELECT ON credit_grants TO grantonce_api;
    GRANT SELECT ON credit_adjustments TO grantonce_api;

    -- The reconciler notes what was asked. It sees the status of orders, and not their account or amount.
    GRANT SELECT (id, status, price_terms, created_at) ON orders TO grantonce_reconciler;
    GRANT SELECT ON payments TO grantonce_reconciler;
    GRANT SELECT, INSERT, UPDATE, DELETE ON provider_looks TO grantonce_reconciler;
    GRANT SELECT, INSERT, UPDATE ON provider_pace TO grantonce_reconciler;

    -- The ops role keeps dead letters and replays them. It reads orders to compute what a replay would do, but not their metadata.
    -- It reads the bodies of dead letters.
    GRANT SELECT, INSERT, UPDATE, DELETE ON dead_letters TO grantonce_ops;
    GRANT SELECT, INSERT, UPDATE ON replays TO grantonce_ops;
    GRANT SELECT, INSERT, UPDATE ON replay_letters TO grantonce_ops;
    GRANT SELECT (id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, facts, created_at, updated_at) ON orders TO grantonce_ops;
    GRANT SELECT (order_id, number, first_sent_at, last_sent_at, is_burnt, payment_id) ON payment_attempts TO grantonce_ops;
    GRANT SELECT ON credit_grants TO grantonce_ops;
    GRANT SELECT ON credit_adjustments TO grantonce_ops;
    GRANT SELECT ON message_notes TO grantonce_ops;
    GRANT SELECT ON activity TO grantonce_ops;
    GRANT SELECT ON payments TO grantonce_ops;
    GRANT SELECT ON inbox TO grantonce_ops;
    GRANT SELECT ON provider_looks TO grantonce_ops;
    GRANT SELECT ON overpaid_orders TO grantonce_ops;
    GRANT EXECUTE ON FUNCTION letters_about(uuid[]), orders_of_letters(uuid[]) TO grantonce_ops;
    GRANT SELECT, INSERT ON audit_log TO grantonce_ops;
    -- The place of a row: ops computes verdicts with the worker's own query, and that query reads it.
    GRANT SELECT (ctid) ON orders TO grantonce_ops;
    -- It sets the price of orders to what was paid (in the console, and with `dlq amend`). A person who may set a price can sell at
    -- any price: give the console's tokens to few people.
    GRANT UPDATE (amount_minor, currency, status, version, updated_at) ON orders TO grantonce_ops;

    -- The operator locks an order, sets its price, and appends to the audit log. A person who may set a price can sell at any
    -- price: give this role to few people.
    GRANT SELECT (id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, facts) ON orders TO grantonce_operator;
    GRANT UPDATE (amount_minor, currency, status, version, updated_at) ON orders TO grantonce_operator;
    GRANT SELECT, INSERT ON audit_log TO grantonce_operator;
    -- This function empties metadata and bodies with its owner's rights. Its caller cannot read them.
    GRANT EXECUTE ON FUNCTION forget_account(text, uuid, integer, boolean, timestamptz) TO grantonce_operator;

    -- Everything that an order's story needs. No metadata, no body, no header, and nothing that could be used to pay.
    GRANT SELECT (id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, facts, created_at, updated_at) ON orders TO grantonce_verify;
    GRANT SELECT ON payments TO grantonce_verify;
    GRANT SELECT (order_id, number, first_sent_at, last_sent_at, is_burnt, payment_id) ON payment_attempts TO grantonce_verify;
    GRANT SELECT ON inbox TO grantonce_verify;
    GRANT SELECT ON message_notes TO grantonce_verify;
    GRANT SELECT ON credit_grants TO grantonce_verify;
    GRANT SELECT ON credit_adjustments TO grantonce_verify;
    GRANT SELECT ON provider_looks TO grantonce_verify;
    GRANT SELECT ON audit_log TO grantonce_verify;
    GRANT SELECT ON overpaid_orders TO grantonce_verify;
    GRANT SELECT (id, message_id, reason, detail, origin, attempts, provider, provider_account, payment_id, payment_ids, order_id,
                  order_ids, said, is_read, said_type, said_state, amount_minor, currency, state, state_at,
                  state_by, state_reason, first_seen_at, last_seen_at, seen, replays, verdict, verdict_detail)
        ON dead_letters TO grantonce_verify;
    GRANT EXECUTE ON FUNCTION letters_about(uuid[]), orders_of_letters(uuid[]) TO grantonce_verify;
    GRANT SELECT (id, created_at, actor, is_self_declared, reason) ON replays TO grantonce_verify;
    GRANT SELECT (replay_id, position, letter_id, number, state, sent_at, ended_at) ON replay_letters TO grantonce_verify;

    -- The columns are listed, so that a new column is not shown before somebody has decided about it.
    GRANT SELECT (id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider, provider_account, status, version,
                  is_granted, credits_granted, revision, created_at, updated_at) ON orders TO grantonce_reporting;
    GRANT SELECT ON overpaid_orders TO grantonce_reporting;
    GRANT SELECT ON account_balances TO grantonce_reporting;
    GRANT SELECT ON credit_grants TO grantonce_reporting;
    GRANT SELECT ON credit_adjustments TO grantonce_reporting;
    GRANT SELECT ON audit_log TO grantonce_reporting;
    GRANT SELECT ON activity TO grantonce_reporting;
END $$;

COMMIT;
