-- What waits is told with its cause, and every transaction takes its locks in one order.
--
-- `forget_account` locked orders in the order of their ids, but an account's attempts
-- and dead letters in whatever order it found them, and could meet a replay in a circle. It keeps its rights.
SET LOCAL lock_timeout = '5s';

-- Why a message waits that could not be settled through no fault of its own; null for all others. Notes are off the worker's
-- path: one that cannot be written while the index is made is lost, and nothing else.
ALTER TABLE message_notes ADD COLUMN waits_for text;
CREATE INDEX message_notes_waiting ON message_notes (last_noted_at) WHERE waits_for IS NOT NULL;

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
        -- Rows of each table in the order of their keys, as every transaction locks them.
        PERFORM FROM orders o WHERE o.id = ANY(page) ORDER BY o.id FOR NO KEY UPDATE;
        UPDATE orders o SET metadata = '{}', version = version + 1, updated_at = at
        WHERE o.id = ANY(page) AND o.metadata <> '{}';
        GET DIAGNOSTICS orders_emptied = ROW_COUNT;
        PERFORM FROM payment_attempts a WHERE a.order_id = ANY(page) ORDER BY a.order_id, a.number FOR UPDATE;
        UPDATE payment_attempts a SET client_secret = NULL, approve_url = NULL
        WHERE a.order_id = ANY(page) AND (a.client_secret IS NOT NULL OR a.approve_url IS NOT NULL);
        GET DIAGNOSTICS attempts_emptied = ROW_COUNT;
        PERFORM FROM dead_letters d WHERE d.id = ANY(letters) ORDER BY d.id FOR UPDATE;
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
