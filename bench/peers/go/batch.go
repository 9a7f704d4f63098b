package main

import (
	"context"
	"sort"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v4"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Several transactions run at the same time. Two of them can contain copies of a message and so share an order. They cannot
// wait for each other in a circle: each first locks all its orders in order of their ids, and then inserts its messages in
// order of their ids.
const (
	lockOrders = `
		SELECT p.provider, p.payment_id, o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.is_granted
		FROM payments p JOIN orders o ON o.id = p.order_id
		WHERE p.payment_id = ANY($1) AND p.provider_account = ''
		ORDER BY o.id FOR NO KEY UPDATE OF o`
	admitMessages = `
		INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
		SELECT event_day, message_id, fact_digest, order_id, now(), 'captured'
		FROM unnest($1::date[], $2::text[], $3::bytea[], $4::uuid[]) AS m (event_day, message_id, fact_digest, order_id)
		ON CONFLICT DO NOTHING RETURNING message_id`
	insertGrants = `
		INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
		SELECT order_id, account_id, credits, message_id, now()
		FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) AS g (order_id, account_id, credits, message_id)`
	fulfilOrders = `
		UPDATE orders SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
		    facts = jsonb_build_object('captured_total_minor', captured), updated_at = now()
		FROM unnest($1::uuid[], $2::bigint[]) AS g (order_id, captured) WHERE id = order_id`
)

// A batch that is not full is applied when its first message is this old.
const batchWait = 5 * time.Millisecond

type entry struct {
	delivery amqp.Delivery
	message  *message
	order    *order
	refused  bool
}

type batch struct {
	entries []*entry
	applied chan error
}

// Fills batches. Each connection applies one batch at a time. Batches are acknowledged in the order of their delivery, each
// with one cumulative ack.
func runBatches(w *worker, k knobs) {
	work := make(chan *batch)
	inOrder := make(chan *batch, k.connections)
	for i := 0; i < k.connections; i++ {
		go func() {
			for b := range work {
				b.applied <- w.applyBatch(b)
			}
		}()
	}
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		for b := range inOrder {
			w.settleBatch(b, <-b.applied)
		}
	}()
	for b := w.nextBatch(k.batch); b != nil; b = w.nextBatch(k.batch) {
		work <- b
		inOrder <- b
	}
	close(work)
	close(inOrder)
	<-settled
}

// Returns nothing if the program has to stop.
func (w *worker) nextBatch(size int) *batch {
	b := &batch{entries: make([]*entry, 0, size), applied: make(chan error, 1)}
	var due <-chan time.Time
	for len(b.entries) < size {
		select {
		case <-w.ctx.Done():
			return nil
		case <-due:
			return b
		case delivery, is := <-w.deliveries:
			if !is {
				return nil
			}
			if due == nil {
				timer := time.NewTimer(batchWait)
				defer timer.Stop()
				due = timer.C
			}
			m, err := read(delivery.Body)
			b.entries = append(b.entries, &entry{delivery: delivery, message: m, refused: err != nil})
		}
	}
	return b
}

func (w *worker) settleBatch(b *batch, err error) {
	last := b.entries[len(b.entries)-1].delivery.DeliveryTag
	if err != nil {
		complain("database", err)
		sleep(w.ctx, pauseAfterError)
		must(w.channel.Nack(last, true, true))
		return
	}
	done := int64(len(b.entries))
	for _, e := range b.entries {
		if e.refused {
			must(e.delivery.Nack(false, false))
			done--
		}
	}
	// The ack also covers earlier messages if the last one was refused. If all were refused, there is nothing to acknowledge.
	if done > 0 {
		must(w.channel.Ack(lastToAck(b), true))
	}
	atomic.AddInt64(&w.done, done)
}

// The broker refuses a tag that is already settled.
func lastToAck(b *batch) uint64 {
	for i := len(b.entries) - 1; ; i-- {
		if !b.entries[i].refused {
			return b.entries[i].delivery.DeliveryTag
		}
	}
}

// One transaction in three round trips.
func (w *worker) applyBatch(b *batch) error {
	ctx := context.Background()
	pooled, err := w.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer pooled.Release()
	conn := pooled.Conn()
	if err := lock(ctx, conn, b.entries); err != nil {
		return err
	}
	admitted, err := admit(ctx, conn, b.entries)
	if err != nil {
		return err
	}
	return grant(ctx, conn, admitted)
}

// Begins, locks the orders of the messages, and refuses messages that have no order or another amount.
func lock(ctx context.Context, conn *pgx.Conn, entries []*entry) error {
	payments := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.refused {
			payments = append(payments, e.message.PaymentID)
		}
	}
	var first pgx.Batch
	first.Queue("BEGIN")
	first.Queue(lockOrders, payments)
	answers := conn.SendBatch(ctx, &first)
	defer answers.Close()
	if _, err := answers.Exec(); err != nil {
		return err
	}
	rows, err := answers.Query()
	if err != nil {
		return err
	}
	type payment struct{ provider, id string }
	orders := make(map[payment]*order, len(entries))
	byID := make(map[[16]byte]*order, len(entries)) // an order may have several payments
	for rows.Next() {
		var p payment
		o := new(order)
		if err := rows.Scan(&p.provider, &p.id, &o.id, &o.accountID, &o.credits, &o.amountMinor, &o.currency,
			&o.isGranted); err != nil {
			return err
		}
		if known := byID[o.id]; known != nil {
			o = known
		}
		byID[o.id], orders[p] = o, o
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, e := range entries {
		if e.refused {
			continue
		}
		e.order = orders[payment{e.message.Provider, e.message.PaymentID}]
		e.refused = e.order == nil || !e.message.pays(e.order)
	}
	return nil
}

// Writes the messages to the inbox and returns those that were new.
func admit(ctx context.Context, conn *pgx.Conn, entries []*entry) ([]*entry, error) {
	byID := make(map[string]*entry, len(entries))
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.refused && byID[e.message.ID] == nil {
			byID[e.message.ID] = e
			ids = append(ids, e.message.ID)
		}
	}
	sort.Strings(ids)
	days := make([]time.Time, len(ids))
	digests := make([][]byte, len(ids))
	orders := make([][16]byte, len(ids))
	for i, id := range ids {
		e := byID[id]
		days[i], digests[i], orders[i] = e.message.day(), e.message.digest(), e.order.id
	}
	rows, err := conn.Query(ctx, admitMessages, days, ids, digests, orders)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	admitted := make([]*entry, 0, len(ids))
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		admitted = append(admitted, byID[id])
	}
	return admitted, rows.Err()
}

// Writes the grants of orders that were paid for the first time, and commits.
func grant(ctx context.Context, conn *pgx.Conn, admitted []*entry) error {
	var orders [][16]byte
	var accounts, ids []string
	var credits, captured []int64
	for _, e := range admitted {
		if e.order.isGranted {
			continue
		}
		e.order.isGranted = true
		orders = append(orders, e.order.id)
		accounts = append(accounts, e.order.accountID)
		credits = append(credits, e.order.credits)
		ids = append(ids, e.message.ID)
		captured = append(captured, e.message.Status.AmountMinor)
	}
	var last pgx.Batch
	if len(orders) > 0 {
		last.Queue(insertGrants, orders, accounts, credits, ids)
		last.Queue(fulfilOrders, orders, captured)
	}
	last.Queue("COMMIT")
	return execAll(ctx, conn, &last)
}
