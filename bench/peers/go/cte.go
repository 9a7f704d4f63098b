package main

import (
	"context"

	"github.com/jackc/pgx/v4"
)

// The same work as one statement, which is a transaction by itself. The reads see the rows as they were when the statement
// began. The result is still correct: the lock and the update use the newest version of the order's row, and ON CONFLICT sees
// what others have committed in the meantime.
const applyMessage = `
	WITH locked AS (
	    SELECT o.id, o.account_id, o.credits, o.is_granted, o.amount_minor = $3 AND o.currency = $4 AS is_paid
	    FROM payments p JOIN orders o ON o.id = p.order_id
	    WHERE p.payment_id = $1 AND p.provider = $2 AND p.provider_account = ''
	    FOR NO KEY UPDATE OF o
	), admitted AS (
	    INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
	    SELECT $5, $6, $7, id, now(), 'captured' FROM locked WHERE is_paid
	    ON CONFLICT DO NOTHING RETURNING order_id
	), granted AS (
	    INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
	    SELECT id, account_id, credits, $6, now() FROM locked JOIN admitted ON order_id = id WHERE NOT is_granted
	    RETURNING order_id
	), fulfilled AS (
	    UPDATE orders SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
	        facts = jsonb_build_object('captured_total_minor', $3::bigint), updated_at = now()
	    FROM granted WHERE id = order_id
	)
	SELECT coalesce((SELECT is_paid FROM locked), false)`

func runCte(w *worker, k knobs) { w.each(k.connections, applyCte) }

func applyCte(ctx context.Context, conn *pgx.Conn, m *message) error {
	var isPaid bool
	err := conn.QueryRow(ctx, applyMessage, m.PaymentID, m.Provider, m.Status.AmountMinor, m.Status.Currency,
		m.day(), m.ID, m.digest()).Scan(&isPaid)
	if err == nil && !isPaid {
		return errRefused
	}
	return err
}
