-- What a dead letter says is kept in columns, and a letter is found by every order that it concerns.
--
-- The release before this one runs on this schema, and its `ops` inserts letters without the new columns. Such rows, and those
-- from before this migration, have is_read = false: `ops` reads their bodies and fills the columns, some hundreds a second. No
-- row is rewritten here, and the indexes begin with empty arrays. If a lock cannot be had within 5 s, nothing is changed;
-- `grantonce migrate` again tries again.
SET LOCAL lock_timeout = '5s';

ALTER TABLE dead_letters
    ADD COLUMN is_read          boolean NOT NULL DEFAULT false,            -- the columns below hold what the body says
    ADD COLUMN provider_account text COLLATE "C" NOT NULL DEFAULT '',      -- '' is our own account at the provider
    ADD COLUMN payment_ids      text[] COLLATE "C" NOT NULL DEFAULT '{}',  -- every id by which it names its payment
    ADD COLUMN order_ids        uuid[] NOT NULL DEFAULT '{}',              -- that it names; they need not be orders of ours
    ADD COLUMN said_type        text,                                      -- status.type of the contract; none: it cannot be read
    ADD COLUMN said_state       text,                                      -- of that capture, refund or dispute
    ADD COLUMN amount_minor     bigint,                                    -- in minor units of currency
    ADD COLUMN currency         text;
CREATE INDEX dead_letters_payment_ids ON dead_letters USING gin (payment_ids);
CREATE INDEX dead_letters_order_ids ON dead_letters USING gin (order_ids);
CREATE INDEX dead_letters_unread ON dead_letters (id) WHERE NOT is_read;

-- Letters that concern one of these orders: they name it, or one of their payment's ids is registered to it. One that is not
-- read yet is found by its main payment id, whatever the account: too many are better than too few.
CREATE FUNCTION letters_about(wanted uuid[]) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    SELECT d.id FROM dead_letters d WHERE d.order_id = ANY(wanted)
    UNION
    SELECT d.id FROM dead_letters d WHERE d.order_ids && wanted
    UNION
    SELECT d.id FROM payments p JOIN dead_letters d
        ON d.payment_ids @> ARRAY[p.payment_id] AND d.provider = p.provider AND d.provider_account = p.provider_account
    WHERE p.order_id = ANY(wanted)
    UNION
    SELECT d.id FROM payments p JOIN dead_letters d
        ON d.payment_id = p.payment_id AND d.provider = p.provider AND NOT d.is_read
    WHERE p.order_id = ANY(wanted)
$$;

-- The same the other way round: the orders that each of these letters concerns. An order that a letter names need not exist.
CREATE FUNCTION orders_of_letters(letters uuid[]) RETURNS TABLE (letter_id uuid, order_id uuid) LANGUAGE sql STABLE AS $$
    SELECT d.id, d.order_id FROM dead_letters d WHERE d.id = ANY(letters) AND d.order_id IS NOT NULL
    UNION
    SELECT d.id, named.order_id FROM dead_letters d, unnest(d.order_ids) AS named (order_id) WHERE d.id = ANY(letters)
    UNION
    SELECT d.id, p.order_id FROM dead_letters d JOIN payments p
        ON p.payment_id = ANY(d.payment_ids) AND p.provider = d.provider AND p.provider_account = d.provider_account
    WHERE d.id = ANY(letters)
    UNION
    SELECT d.id, p.order_id FROM dead_letters d JOIN payments p
        ON p.payment_id = d.payment_id AND p.provider = d.provider AND NOT d.is_read
    WHERE d.id = ANY(letters)
$$;
REVOKE EXECUTE ON FUNCTION letters_about, orders_of_letters FROM PUBLIC;

-- As in 0003, but it finds an account's letters as all others do. It keeps its rights.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
CREATE OR REPLACE FUNCTION forget_account(
    whom text, behind uuid, orders_max integer, for_real boolean, at timestamptz,
    OUT seen integer, OUT last_order uuid, OUT orders_emptied integer, OUT attempts_emptied integer,
    OUT letters_emptied integer, OUT letters_left integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    page uuid[];
    letters uuid[];
BEGIN
    page := ARRAY(SELECT o.id FROM orders o WHERE o.account_id = whom AND o.id > behind ORDER BY o.id LIMIT orders_max);
    seen := cardinality(page);
    last_order := page[seen];
    letters := ARRAY(SELECT l.id FROM letters_about(page) AS l (id));
    IF for_real THEN
        -- In the order in which batches lock them.
        PERFORM FROM orders o WHERE o.id = ANY(page) ORDER BY o.id FOR NO KEY UPDATE;
        UPDATE orders o SET metadata = '{}', version = version + 1, updated_at = at
        WHERE o.id = ANY(page) AND o.metadata <> '{}';
        GET DIAGNOSTICS orders_emptied = ROW_COUNT;
        UPDATE payment_attempts a SET client_secret = NULL, approve_url = NULL
        WHERE a.order_id = ANY(page) AND (a.client_secret IS NOT NULL OR a.approve_url IS NOT NULL);
        GET DIAGNOSTICS attempts_emptied = ROW_COUNT;
        UPDATE dead_letters d SET body = NULL, headers = '{}'
        WHERE d.id = ANY(letters) AND d.state IN ('resolved', 'archived') AND (d.body IS NOT NULL OR d.headers <> '{}');
        GET DIAGNOSTICS letters_emptied = ROW_COUNT;
    ELSE
        orders_emptied := (SELECT count(*) FROM orders o WHERE o.id = ANY(page) AND o.metadata <> '{}');
        attempts_emptied := (SELECT count(*) FROM payment_attempts a WHERE a.order_id = ANY(page)
                             AND (a.client_secret IS NOT NULL OR a.approve_url IS NOT NULL));
        letters_emptied := (SELECT count(*) FROM dead_letters d WHERE d.id = ANY(letters)
                            AND d.state IN ('resolved', 'archived') AND (d.body IS NOT NULL OR d.headers <> '{}'));
    END IF;
    letters_left := (SELECT count(*) FROM dead_letters d
                     WHERE d.id = ANY(letters) AND d.state IN ('open', 'replaying'));
END $$;
