-- One call writes a batch: the worker decides outside of a transaction, and this function writes what was decided. It is one
-- statement, so it is one transaction: a grant without the row of its message in the inbox cannot be committed.
--
-- The number in the name is the version of the call. A later release adds `apply_batch_v2` and keeps this function, until no
-- process of this release runs any more.
--
-- Every list belongs to one table, in the ascending order of that table's key. The statements run in the one order in which
-- all transactions take their locks: inbox, payments, orders, ledger. A list that is null is skipped. An empty list runs its
-- statement on no rows, so a worker can find out beforehand whether it has every right.
--
-- It fails with `serialization_failure` and writes nothing if another transaction has registered one of the payments or has
-- changed one of the orders since they were read. It fails with `unique_violation` if the inbox has one of the messages.
--
-- It runs with the rights of its caller and with the caller's search path, as the caller's own statements do.
CREATE FUNCTION apply_batch_v1(
    at timestamptz,
    -- How long to wait for a row that another transaction has locked; null: as long as the session's setting says.
    lock_wait_ms integer,
    -- Messages to admit, by day and id.
    inbox_days date[], inbox_ids text[], inbox_digests bytea[], inbox_orders uuid[], inbox_said text[],
    -- Payments to register.
    payment_providers text[], payment_accounts text[], payment_ids text[], payment_orders uuid[],
    -- Orders that must still have these versions, whether they are written or not.
    held_ids uuid[], held_versions bigint[],
    -- Orders to write. `order_places` says where each row was when it was read, which saves a second search.
    order_ids uuid[], order_places tid[], order_versions bigint[], order_statuses text[], order_granted boolean[],
    order_credits bigint[], order_revisions integer[], order_facts text[],
    grant_orders uuid[], grant_accounts text[], grant_credits bigint[], grant_messages text[],
    adjusted_orders uuid[], adjusted_revisions integer[], adjusted_accounts text[], adjusted_credits bigint[],
    adjusted_reasons text[], adjusted_messages text[],
    overpaid_ids uuid[], overpaid_minors bigint[],
    -- What to announce to readers who wait; null: nothing.
    changed text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    rows_written bigint;
BEGIN
    IF lock_wait_ms IS NOT NULL THEN
        PERFORM set_config('lock_timeout', lock_wait_ms::text, true);
    END IF;
    IF inbox_ids IS NOT NULL THEN
        INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
        SELECT n.day, n.id, n.digest, n.order_id, at, n.said
        FROM unnest(inbox_days, inbox_ids, inbox_digests, inbox_orders, inbox_said) AS n (day, id, digest, order_id, said);
    END IF;
    IF payment_ids IS NOT NULL THEN
        INSERT INTO payments (provider, provider_account, payment_id, order_id, registered_at)
        SELECT n.provider, n.account, n.id, n.order_id, at
        FROM unnest(payment_providers, payment_accounts, payment_ids, payment_orders) AS n (provider, account, id, order_id)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS rows_written = ROW_COUNT;
        IF rows_written <> cardinality(payment_ids) THEN
            RAISE EXCEPTION 'a payment was registered meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF held_ids IS NOT NULL THEN
        PERFORM o.id FROM unnest(held_ids, held_versions) AS n (id, version)
            JOIN orders o ON o.id = n.id AND o.version = n.version
            ORDER BY o.id FOR NO KEY UPDATE OF o;
        GET DIAGNOSTICS rows_written = ROW_COUNT;
        IF rows_written <> cardinality(held_ids) THEN
            RAISE EXCEPTION 'an order was changed meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF order_ids IS NOT NULL THEN
        -- A row that was written since has another place. The row that is there now has another id or another version.
        UPDATE orders o
        SET status = n.status, is_granted = n.is_granted, credits_granted = n.credits, revision = n.revision,
            facts = n.facts::jsonb, version = o.version + 1, updated_at = at
        FROM unnest(order_ids, order_places, order_versions, order_statuses, order_granted, order_credits, order_revisions,
                    order_facts)
             AS n (id, place, version, status, is_granted, credits, revision, facts)
        WHERE o.ctid = n.place AND o.id = n.id AND o.version = n.version;
        GET DIAGNOSTICS rows_written = ROW_COUNT;
        IF rows_written <> cardinality(order_ids) THEN
            RAISE EXCEPTION 'an order was changed meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF grant_orders IS NOT NULL THEN
        -- A second grant of an order violates the primary key.
        INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
        SELECT n.order_id, n.account_id, n.credits, n.message_id, at
        FROM unnest(grant_orders, grant_accounts, grant_credits, grant_messages) AS n (order_id, account_id, credits, message_id);
    END IF;
    IF adjusted_orders IS NOT NULL THEN
        INSERT INTO credit_adjustments (order_id, revision, account_id, credits, reason, message_id, created_at)
        SELECT n.order_id, n.revision, n.account_id, n.credits, n.reason, n.message_id, at
        FROM unnest(adjusted_orders, adjusted_revisions, adjusted_accounts, adjusted_credits, adjusted_reasons, adjusted_messages)
             AS n (order_id, revision, account_id, credits, reason, message_id);
    END IF;
    IF overpaid_ids IS NOT NULL THEN
        INSERT INTO overpaid_orders AS o (order_id, overpaid_minor, since, updated_at)
        SELECT n.order_id, n.minor, at, at FROM unnest(overpaid_ids, overpaid_minors) AS n (order_id, minor)
        ON CONFLICT (order_id) DO UPDATE SET overpaid_minor = EXCLUDED.overpaid_minor, updated_at = EXCLUDED.updated_at,
            since = CASE WHEN o.overpaid_minor = 0 THEN EXCLUDED.updated_at ELSE o.since END;
    END IF;
    IF changed IS NOT NULL THEN
        PERFORM pg_notify('grantonce_orders', changed);
    END IF;
END $$;
