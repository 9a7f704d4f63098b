-- What an order's story is told from, apart from the truth itself. Nothing here decides anything.

-- What each admitted message said, in a word (`status.type` of the contract); none: admitted before this was written
-- down.
ALTER TABLE inbox ADD COLUMN said text;

-- An order's messages. Not a B-tree: on the worker's path this costs nearly nothing, because a range of blocks is
-- summarised when it is full, and no more rows come then. A filter rather than bounds: refunds and disputes come long
-- after their order, and a few of them spread the bounds of nearly every range over nearly all orders.
CREATE INDEX inbox_order_id ON inbox
    USING brin (order_id uuid_bloom_ops (n_distinct_per_range = 2500, false_positive_rate = 0.01))
    WITH (pages_per_range = 32, autosummarize = on);

-- An account's orders, newest first.
CREATE INDEX orders_account ON orders (account_id, id);

-- Copies of messages that were absorbed, and messages that wait for their order: counted by the worker after its
-- commit, about once a second. A crash may lose the last second's.
CREATE TABLE message_notes (
    message_id     text COLLATE "C" PRIMARY KEY,
    provider       text COLLATE "C" NOT NULL,
    payment_id     text COLLATE "C" NOT NULL,
    order_id       uuid,                                   -- where the message names one; it may not exist
    said           text NOT NULL,
    copies         bigint NOT NULL,                        -- that came after it was admitted
    put_offs       bigint NOT NULL,                        -- how often it was sent to wait for its order
    first_noted_at timestamptz NOT NULL,
    last_noted_at  timestamptz NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX message_notes_payment ON message_notes (payment_id);
CREATE INDEX message_notes_order ON message_notes (order_id) WHERE order_id IS NOT NULL;
-- To delete the oldest by. They lie together: what is deleted makes room for the newest.
CREATE INDEX message_notes_noted ON message_notes
    USING brin (first_noted_at) WITH (pages_per_range = 32, autosummarize = on);

-- What the workers did, minute by minute, counted in the same way.
CREATE TABLE activity (
    minute        timestamptz PRIMARY KEY,
    applied       bigint NOT NULL,
    duplicates    bigint NOT NULL,
    put_off       bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    grants        bigint NOT NULL
) WITH (fillfactor = 50);                                  -- room for updates: a worker brings one a second

-- Deletes notes of messages that were first noted `retention_days` ago, and minutes of 35 days ago; at most 20,000
-- notes, so that no call takes long: while it returns so many, there are more. Runs with its owner's rights, as
-- inbox_maintain does, and with temporary tables last in its search path for the same reason.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
CREATE FUNCTION notes_maintain(at timestamptz, retention_days integer, OUT notes integer, OUT minutes integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM message_notes WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM message_notes WHERE first_noted_at < at - make_interval(days => retention_days)
        LIMIT 20000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS notes = ROW_COUNT;
    DELETE FROM activity WHERE minute < at - interval '35 days';
    GET DIAGNOSTICS minutes = ROW_COUNT;
END $$;
REVOKE EXECUTE ON FUNCTION notes_maintain FROM PUBLIC;

-- Empties what is kept of an account's buyers, for the next `orders_max` of its orders behind `behind`: metadata, with
-- what a payment can be paid, and headers and bodies of dead letters about them. A letter that is open is left: it may
-- still bring a grant, for which its body is needed. Not `for_real`: only counts. Says how many orders it looked at and
-- which was the last.
--
-- With its owner's rights, so that whoever may call it need not be able to read any of it.
CREATE FUNCTION forget_account(
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
    letters := ARRAY(
        SELECT d.id FROM dead_letters d WHERE d.order_id = ANY(page)
        UNION
        SELECT d.id FROM payments p JOIN dead_letters d ON d.payment_id = p.payment_id AND d.provider = p.provider
        WHERE p.order_id = ANY(page));
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
REVOKE EXECUTE ON FUNCTION forget_account FROM PUBLIC;
