-- What an order's story is told from, apart from the truth itself. Nothing here decides anything.

-- What each admitted message said, in a word (`status.type` of the contract); none: admitted before this was written down.
ALTER TABLE inbox ADD COLUMN said text;

-- An order's messages. Not a B-tree: on the worker's path this costs nearly nothing, because a range of blocks is summarised
-- when it is full, and no more rows come then. A filter rather than bounds: refunds and disputes come long after their order,
-- and a few of them spread the bounds of nearly every range over nearly all orders.
CREATE INDEX inbox_order_id ON inbox
    USING brin (order_id uuid_bloom_ops (n_distinct_per_range = 2500, false_positive_rate = 0.01))
    WITH (pages_per_range = 32, autosummarize = on);

-- Copies of messages that were absorbed, and messages that wait for their order: counted by the worker after its commit, about
-- once a second. A crash may lose the last second's.
CREATE TABLE message_notes (
    message_id     text COLLATE "C" PRIMARY KEY,
    provider       text COLLATE "C" NOT NULL,
    payment_id     text COLLATE "C" NOT NULL,
    order_id       uuid,                                   -- where the message names one; it may not exist
    said           text NOT NULL,
    copies         bigint NOT NULL,                        -- that came after it was admitted
    put_offs       bigint NOT NULL,                        -- how often it was sent to wait, because its order was unknown
    first_noted_at timestamptz NOT NULL,
    last_noted_at  timestamptz NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX message_notes_payment ON message_notes (payment_id);
CREATE INDEX message_notes_order ON message_notes (order_id) WHERE order_id IS NOT NULL;
-- To delete the oldest by. They lie together: what is deleted makes room for the newest.
CREATE INDEX message_notes_noted ON message_notes USING brin (first_noted_at) WITH (pages_per_range = 32, autosummarize = on);

-- What the workers did, minute by minute, counted in the same way.
CREATE TABLE activity (
    minute        timestamptz PRIMARY KEY,
    applied       bigint NOT NULL,
    duplicates    bigint NOT NULL,
    put_off       bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    grants        bigint NOT NULL
) WITH (fillfactor = 50);                                  -- one row a minute, which is updated once a second by each worker

-- Deletes notes of messages that were first noted `retention_days` ago, and minutes of 35 days ago; at most 20,000 notes, so that
-- no call takes long: while it returns so many, there are more. Runs with its owner's rights, as inbox_maintain does, and with
-- temporary tables last in its search path for the same reason.
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
