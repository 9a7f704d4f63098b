-- The truth. Rights: only the migrating role owns anything here; see deploy/postgres-roles.sql for the others.
--
-- Ids are compared as bytes (COLLATE "C"): that is what they are, it is quicker than any language's order, and an
-- upgrade of the system's locales cannot put an index of theirs out of order.

-- What was sold, and how its payment stands. `facts` is the payment's converging state: it lives in the order's own row,
-- because the row lock then covers it, and what the locking statement returns is never stale.
CREATE TABLE orders (
    id               uuid PRIMARY KEY,                     -- version 7: new orders lie side by side
    account_id       text COLLATE "C" NOT NULL,            -- who gets the credits; the site's own id
    credits          bigint NOT NULL CHECK (credits > 0),  -- sold
    amount_minor     bigint NOT NULL CHECK (amount_minor > 0),
    currency         text NOT NULL CHECK (length(currency) = 3),
    provider         text COLLATE "C" NOT NULL,
    provider_account text COLLATE "C" NOT NULL DEFAULT '', -- '' is our own account at the provider
    status           text NOT NULL DEFAULT 'awaiting_payment' CHECK (status IN (
                         'awaiting_payment', 'processing', 'fulfilled', 'canceled',
                         'partially_refunded', 'refunded', 'disputed')),
    version          bigint NOT NULL DEFAULT 1,            -- rises with every change of the row
    is_granted       boolean NOT NULL DEFAULT false,       -- credit_grants has its row
    credits_granted  bigint NOT NULL DEFAULT 0,            -- net: the grant and all adjustments
    revision         integer NOT NULL DEFAULT 0,           -- of the last adjustment
    facts            jsonb NOT NULL DEFAULT '{}',
    metadata         jsonb NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CHECK (credits_granted BETWEEN 0 AND credits)
) WITH (fillfactor = 75);                                  -- room for the update that fulfils it, in the same page

-- Which order a payment belongs to, for ever, by every id the provider knows it by.
CREATE TABLE payments (
    provider         text COLLATE "C" NOT NULL,
    provider_account text COLLATE "C" NOT NULL DEFAULT '',
    payment_id       text COLLATE "C" NOT NULL,
    order_id         uuid NOT NULL REFERENCES orders (id),
    registered_at    timestamptz NOT NULL,
    PRIMARY KEY (payment_id, provider, provider_account)   -- what tells two of them apart comes first
);
CREATE INDEX payments_order_id ON payments (order_id);

-- Answers to POST /v1/orders, by the caller's key; the name of the caller's token scopes it.
CREATE TABLE idempotency_keys (
    token_name     text COLLATE "C" NOT NULL,
    key            text COLLATE "C" NOT NULL,
    request_digest bytea NOT NULL,
    order_id       uuid NOT NULL REFERENCES orders (id),
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (token_name, key)
);

-- Calls that create an order's payment at its provider. Each is committed before it is made, so that whoever comes after a
-- crash knows what may have been made, and asks before anything new is.
CREATE TABLE payment_attempts (
    order_id      uuid NOT NULL REFERENCES orders (id),
    number        integer NOT NULL CHECK (number > 0),
    first_sent_at timestamptz NOT NULL,
    last_sent_at  timestamptz NOT NULL,
    is_burnt      boolean NOT NULL DEFAULT false,          -- the provider has bound its key to a failure
    payment_id    text COLLATE "C",                        -- what came of it
    client_secret text,                                    -- with which the buyer's browser pays
    approve_url   text,                                    -- where the buyer approves the payment
    PRIMARY KEY (order_id, number)
);
-- What was once handed out to a buyer stays the only payment that is.
CREATE UNIQUE INDEX payment_attempts_made ON payment_attempts (order_id) WHERE payment_id IS NOT NULL;

-- What a provider is to be asked about, and when: the payment of each order, and payments of hints that lead to no order of
-- ours yet. A reconciler claims what is due; a claim that is not finished is over by itself after a while.
CREATE TABLE provider_looks (
    provider         text COLLATE "C" NOT NULL,
    provider_account text COLLATE "C" NOT NULL DEFAULT '', -- '' is our own account at the provider
    payment_id       text COLLATE "C" NOT NULL,            -- to ask by
    order_id         uuid REFERENCES orders (id),
    created_at       timestamptz NOT NULL,
    due_at           timestamptz,                          -- none: nothing more is expected
    wanted           integer NOT NULL DEFAULT 0,           -- how often somebody asked for it since it was last answered
    claimed_at       timestamptz,
    asked_at         timestamptz,
    said             text,                                 -- what the provider's last answer came to
    failures         integer NOT NULL DEFAULT 0,           -- in a row: times that it could not be asked
    PRIMARY KEY (payment_id, provider, provider_account)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX provider_looks_order_id ON provider_looks (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX provider_looks_due ON provider_looks (provider, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX provider_looks_wanted ON provider_looks (provider, due_at) WHERE wanted > 0;

-- How far the time of each provider is filled with looks: what bounds their rate, however many processes ask.
CREATE TABLE provider_pace (
    provider   text COLLATE "C" PRIMARY KEY,
    busy_until timestamptz NOT NULL
);

-- Which messages have been applied. Partitioned by the day the event happened, which every copy of a message agrees
-- on: so the key is unique where it matters, the busy part of its index stays small, and old days are dropped whole.
CREATE TABLE inbox (
    event_day   date NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    fact_digest bytea NOT NULL,
    order_id    uuid NOT NULL,
    admitted_at timestamptz NOT NULL,
    PRIMARY KEY (message_id, event_day)                    -- within a partition the day tells nothing apart
) PARTITION BY RANGE (event_day);
-- Days that have no partition of their own: long before or after the present.
CREATE TABLE inbox_other PARTITION OF inbox DEFAULT;
CREATE INDEX inbox_other_event_day ON inbox_other (event_day); -- inbox_maintain moves and deletes whole days of it

-- The ledger. Append-only: a grant once an order, then signed adjustments, numbered by the order's revision. An account's
-- grants are found by its orders (orders_account): accounts come in no order, so that an index of them here would have each
-- grant write to a page that nobody wrote to lately, the more so the longer the ledger is.
CREATE TABLE credit_grants (
    order_id   uuid PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    credits    bigint NOT NULL CHECK (credits > 0),
    message_id text COLLATE "C" NOT NULL,
    granted_at timestamptz NOT NULL
);

CREATE TABLE credit_adjustments (
    order_id   uuid NOT NULL,
    revision   integer NOT NULL CHECK (revision > 0),
    account_id text COLLATE "C" NOT NULL,
    credits    bigint NOT NULL CHECK (credits <> 0),
    reason     text NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, revision)
);
CREATE INDEX credit_adjustments_account ON credit_adjustments (account_id, created_at, order_id);

-- What people did by hand. Append-only.
CREATE TABLE audit_log (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at               timestamptz NOT NULL,
    actor            text NOT NULL,
    is_self_declared boolean NOT NULL,                     -- nobody vouches for the actor's name
    action           text NOT NULL,                        -- order.amend
    subject          text COLLATE "C" NOT NULL,            -- what it was done to
    reason           text,
    count            integer NOT NULL DEFAULT 1,           -- to how many
    before           jsonb,
    after            jsonb
);
CREATE INDEX audit_log_subject ON audit_log (subject, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: write a new row instead', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_grants
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_adjustments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was granted was granted for that price, and every later refund is a share of it.
CREATE FUNCTION refuse_new_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'order % is granted: its price stays', OLD.id USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER price_of_a_grant BEFORE UPDATE OF amount_minor, currency ON orders
    FOR EACH ROW WHEN (OLD.is_granted AND (OLD.amount_minor, OLD.currency) IS DISTINCT FROM (NEW.amount_minor, NEW.currency))
    EXECUTE FUNCTION refuse_new_price();

CREATE VIEW account_balances AS
    SELECT account_id, sum(credits)::bigint AS credits
    FROM (SELECT o.account_id, g.credits FROM orders o JOIN credit_grants g ON g.order_id = o.id
          UNION ALL
          SELECT account_id, credits FROM credit_adjustments) AS entries
    GROUP BY account_id;

-- Makes the partitions of the days around `today` and drops those that `retention_days` have passed. Runs with its
-- owner's rights, so that a worker may call it without being able to change the schema. One at a time; a second caller
-- does nothing. Returns how many partitions it made and dropped.
--
-- Temporary tables come last in its search path. Unsaid they would come first, and a caller's own `inbox_other` with a
-- trigger would run whatever the caller likes with the owner's rights.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
CREATE FUNCTION inbox_maintain(today date, retention_days integer, OUT made integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    day date;
    name text;
    oldest CONSTANT date := today - retention_days;
BEGIN
    made := 0;
    dropped := 0;
    IF NOT pg_try_advisory_xact_lock(hashtext('grantonce.inbox_maintain')) THEN
        RETURN;
    END IF;
    FOR day IN SELECT generate_series(today - 1, today + 7, interval '1 day')::date LOOP
        name := 'inbox_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        -- The parent first, as every batch does. Dropping will need it too, and a batch that holds the parent and waits
        -- for the rest partition would then wait for us while we wait for it.
        LOCK TABLE ONLY inbox IN ACCESS EXCLUSIVE MODE;
        -- Rows of that day may stand in the rest partition, if this was not called for a week: they move.
        LOCK TABLE inbox_other IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE %I (LIKE inbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', name);
        EXECUTE format('WITH moved AS (DELETE FROM inbox_other WHERE event_day = %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
                       day, name);
        EXECUTE format('ALTER TABLE inbox ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, day, day + 1);
        made := made + 1;
    END LOOP;
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'inbox'::regclass AND c.relname ~ '^inbox_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < oldest
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    -- By its index on the day: no scan that grows with the inbox.
    DELETE FROM inbox_other WHERE event_day < oldest;
END $$;
REVOKE EXECUTE ON FUNCTION inbox_maintain FROM PUBLIC;
SELECT * FROM inbox_maintain((now() AT TIME ZONE 'UTC')::date, 36500);
