package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v4"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	lockOrder = `
		SELECT o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.is_granted
		FROM payments p JOIN orders o ON o.id = p.order_id
		WHERE p.payment_id = $1 AND p.provider = $2 AND p.provider_account = ''
		FOR NO KEY UPDATE OF o`
	admitMessage = `
		INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
		VALUES ($1, $2, $3, $4, now(), 'captured') ON CONFLICT DO NOTHING`
	insertGrant = `
		INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
		VALUES ($1, $2, $3, $4, now())`
	fulfilOrder = `
		UPDATE orders SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
		    facts = jsonb_build_object('captured_total_minor', $2::bigint), updated_at = now()
		WHERE id = $1`
)

// The message can never be applied, so it becomes a dead letter.
var errRefused = errors.New("refused")

// One transaction a message. Many run at the same time, so that they share their flushes to disk.
func runSingle(w *worker, k knobs) { w.each(k.connections, applySingle) }

// Processes single messages, `workers` at the same time.
func (w *worker) each(workers int, apply func(context.Context, *pgx.Conn, *message) error) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := 0; i < workers; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				select {
				case <-w.ctx.Done():
					return
				case delivery, is := <-w.deliveries:
					if !is {
						return
					}
					w.settle(delivery, apply)
				}
			}
		}()
	}
}

func (w *worker) settle(delivery amqp.Delivery, apply func(context.Context, *pgx.Conn, *message) error) {
	m, err := read(delivery.Body)
	if err != nil {
		must(delivery.Nack(false, false))
		return
	}
	// Messages that were begun are finished, even if the program has to stop.
	ctx := context.Background()
	conn, err := w.pool.Acquire(ctx)
	if err == nil {
		err = apply(ctx, conn.Conn(), m)
		conn.Release() // the pool closes a connection that is broken or still within a transaction
	}
	switch {
	case err == nil:
		must(delivery.Ack(false))
		atomic.AddInt64(&w.done, 1)
	case errors.Is(err, errRefused):
		must(delivery.Nack(false, false))
	default:
		complain("database", err)
		sleep(w.ctx, pauseAfterError)
		must(delivery.Nack(false, true))
	}
}

// Statements that do not need each other's answers are sent together (pgx.Batch): three round trips instead of six.
func applySingle(ctx context.Context, conn *pgx.Conn, m *message) error {
	var first pgx.Batch
	first.Queue("BEGIN")
	first.Queue(lockOrder, m.PaymentID, m.Provider)
	answers := conn.SendBatch(ctx, &first)
	_, _ = answers.Exec()
	var o order
	err := answers.QueryRow().Scan(&o.id, &o.accountID, &o.credits, &o.amountMinor, &o.currency, &o.isGranted)
	_ = answers.Close()
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && !m.pays(&o):
		_, err = conn.Exec(ctx, "ROLLBACK")
		if err != nil {
			return err
		}
		return errRefused
	case err != nil:
		return err
	}
	admitted, err := conn.Exec(ctx, admitMessage, m.day(), m.ID, m.digest(), o.id)
	if err != nil {
		return err
	}
	var last pgx.Batch
	if admitted.RowsAffected() > 0 && !o.isGranted {
		last.Queue(insertGrant, o.id, o.accountID, o.credits, m.ID)
		last.Queue(fulfilOrder, o.id, m.Status.AmountMinor)
	}
	last.Queue("COMMIT")
	return execAll(ctx, conn, &last)
}

// Sends the statements together and returns the first error.
func execAll(ctx context.Context, conn *pgx.Conn, batch *pgx.Batch) error {
	answers := conn.SendBatch(ctx, batch)
	for i := 0; i < batch.Len(); i++ {
		if _, err := answers.Exec(); err != nil {
			_ = answers.Close()
			return err
		}
	}
	return answers.Close()
}
