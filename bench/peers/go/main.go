// A peer of the benchmark: drains the queue `fulfilment` into Postgres, as a good team would write it in Go.
//
//	drain single|cte|batch|pipelined
//
// The four variants write the same rows into the same tables. They differ in the number of statements and messages in a
// transaction (single.go, cte.go, batch.go). The libraries are amqp091-go, json-iterator, and pgx with its native interface.
// Its statement cache prepares every statement once for each connection and sends parameters in binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v4/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const queue = "fulfilment"

// After a database error messages go back to the broker, which delivers them again at once. This pause prevents a busy loop.
const pauseAfterError = 200 * time.Millisecond

// The context, the connections and the counter of a variant.
type worker struct {
	ctx        context.Context // ends when the program has to stop
	pool       *pgxpool.Pool
	channel    *amqp.Channel
	deliveries <-chan amqp.Delivery
	done       int64 // messages committed and acknowledged
}

// The limits of a variant. Each default was the fastest value for that variant; see ../README.md.
type knobs struct{ prefetch, connections, batch int }

var variants = map[string]struct {
	knobs knobs
	run   func(*worker, knobs)
}{
	"single":    {knobs{prefetch: 128, connections: 32, batch: 1}, runSingle},
	"cte":       {knobs{prefetch: 128, connections: 32, batch: 1}, runCte},
	"batch":     {knobs{prefetch: 1500, connections: 1, batch: 500}, runBatches},
	"pipelined": {knobs{prefetch: 2000, connections: 4, batch: 250}, runBatches},
}

func main() {
	debug.SetGCPercent(400) // nearly all memory of a message is garbage soon, so more memory saves collections
	if len(os.Args) != 2 {
		fail("usage: drain single|cte|batch|pipelined")
	}
	variant, is := variants[os.Args[1]]
	if !is {
		fail("no such variant: " + os.Args[1])
	}
	k := variant.knobs
	k.prefetch = number("PEER_PREFETCH", k.prefetch)
	k.connections = number("PEER_CONNECTIONS", k.connections)
	k.batch = number("PEER_BATCH", k.batch)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	w := &worker{ctx: ctx, pool: connectPostgres(ctx, k.connections)}
	broker, err := amqp.Dial(os.Getenv("AMQP_URL"))
	must(err)
	// Without the broker there is nothing to do, so the program ends. A supervisor starts it again.
	lost := broker.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		if err := <-lost; err != nil {
			fail(err.Error())
		}
	}()
	w.channel, err = broker.Channel()
	must(err)
	must(w.channel.Qos(k.prefetch, 0, false))

	fmt.Println(`{"ready":true}`)
	w.deliveries, err = w.channel.Consume(queue, "", false, false, false, false, nil)
	must(err)
	go w.report()
	variant.run(w, k)
	// Messages that were delivered and not acknowledged go back to the queue.
	_ = broker.Close()
	w.pool.Close()
}

// A pool whose connections are all open.
func connectPostgres(ctx context.Context, connections int) *pgxpool.Pool {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	must(err)
	config.MaxConns = int32(connections)
	pool, err := pgxpool.ConnectConfig(ctx, config)
	must(err)
	for i := 0; i < connections; i++ {
		conn, err := pool.Acquire(ctx)
		must(err)
		defer conn.Release()
	}
	return pool
}

// Prints the number of finished messages when it has changed.
func (w *worker) report() {
	last := int64(0)
	for range time.Tick(50 * time.Millisecond) {
		if done := atomic.LoadInt64(&w.done); done != last {
			last = done
			fmt.Printf("{\"done\":%d}\n", done)
		}
	}
}

func number(name string, otherwise int) int {
	given := os.Getenv(name)
	if given == "" {
		return otherwise
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 1 {
		fail(name + " is no number above 0")
	}
	return n
}

func sleep(ctx context.Context, howLong time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(howLong):
	}
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func complain(what string, err error) { fmt.Fprintf(os.Stderr, "%s: %v\n", what, err) }

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
