"""A drain peer: a Celery worker whose task is one psycopg transaction.

usage: celery_psycopg.py fill|drain

    fill   publish the message bodies that come on stdin, one a line, as tasks
    drain  run the worker
"""

import hashlib
import multiprocessing
import os
import sys
import threading
import warnings
from datetime import datetime, timezone
from uuid import uuid4

import orjson
import psycopg
from celery import Celery, signals
from celery.exceptions import Reject, SecurityWarning
from celery.worker.request import Request
from kombu import Exchange, Queue
from kombu.serialization import register

QUEUE = "celery_fulfilment"
POOL = os.environ.get("PEER_POOL", "threads")
CONCURRENCY = int(os.environ.get("PEER_CONCURRENCY", "16"))
PREFETCH_MULTIPLIER = int(os.environ.get("PEER_PREFETCH_MULTIPLIER", "16"))

# By default Celery uses the JSON module of the standard library.
register("orjson", orjson.dumps, orjson.loads, "application/json", "utf-8")

app = Celery("fulfilment", broker=os.environ["AMQP_URL"], set_as_current=True)
app.conf.update(
    task_queues=[Queue(QUEUE, Exchange(""), routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    worker_detect_quorum_queues=True,  # prefetch by consumer: quorum queues know no other
    task_serializer="orjson",
    accept_content=["json"],
    # At least once: a message is acknowledged when its task is done, and returned if its process dies.
    task_acks_late=True,
    task_acks_on_failure_or_timeout=False,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=PREFETCH_MULTIPLIER,
    # These options cost time for each task and are not needed here.
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)

LOCK = """
SELECT o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.is_granted
FROM payments p JOIN orders o ON o.id = p.order_id
WHERE p.payment_id = %s AND p.provider = %s AND p.provider_account = ''
FOR NO KEY UPDATE OF o"""

ADMIT = """
INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
VALUES (%s, %s, %s, %s, now(), 'captured') ON CONFLICT DO NOTHING RETURNING true"""

GRANT = """
INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
VALUES (%s, %s, %s, %s, now())"""

FULFIL = """
UPDATE orders SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
    facts = %s, updated_at = now()
WHERE id = %s"""

_mine = threading.local()


def sql():
    """This process's (or thread's) connection."""
    connection = getattr(_mine, "sql", None)
    if connection is None or connection.closed:
        connection = _mine.sql = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0)
    return connection


class Counted(Request):
    """Celery's request: counts what was acknowledged, whichever thread did it."""

    done = 0
    lock = threading.Lock()

    def acknowledge(self):
        super().acknowledge()
        with Counted.lock:
            Counted.done += 1


@app.task(name="fulfil", Request=Counted)
def fulfil(said):
    try:
        status = said["status"]
        if status["type"] != "captured" or said["livemode"]:
            raise Reject("not a captured test payment", requeue=False)
        provider, message_id, payment_id = said["provider"], said["message_id"], said["payment_id"]
        amount, currency = status["amount_minor"], status["currency"]
        day = datetime.fromisoformat(said["occurred_at"]).astimezone(timezone.utc).date()
    except (ValueError, KeyError, TypeError) as error:
        raise Reject("malformed", requeue=False) from error
    digest = hashlib.sha256(f"{provider} {payment_id} captured {amount} {currency}".encode()).digest()[:16]
    try:
        connection = sql()
        with connection.transaction(), connection.cursor() as cursor:
            order = cursor.execute(LOCK, (payment_id, provider)).fetchone()
            if order is None or order[3] != amount or order[4] != currency:
                raise Reject("not what was sold", requeue=False)
            order_id, account_id, credits, _, _, is_granted = order
            is_new = cursor.execute(ADMIT, (day, message_id, digest, order_id)).fetchone()
            if not is_new or is_granted:
                return
            cursor.execute(GRANT, (order_id, account_id, credits, message_id))
            cursor.execute(FULFIL, ('{"captured_total_minor":%d}' % amount, order_id))
    except psycopg.Error as error:
        print(f"given back: {error!r}", file=sys.stderr)
        raise Reject(str(error), requeue=True) from error


def publish(lines):
    """Celery's messages, persistent, by a channel of our own: its apply_async would wait for each confirm."""
    unconfirmed_max = 2000
    with app.connection_for_write() as connection, connection.channel() as channel:
        unconfirmed = set()

        def on_ack(tag, multiple):
            if multiple:
                unconfirmed.difference_update([t for t in unconfirmed if t <= tag])
            else:
                unconfirmed.discard(tag)

        def on_nack(tag, multiple):
            sys.exit("the broker refused a message")

        channel.confirm_select()
        channel.events["basic_ack"].add(on_ack)
        channel.events["basic_nack"].add(on_nack)
        for tag, line in enumerate(lines, 1):
            # Otherwise the headers would contain a second copy of the arguments, as text.
            task = app.amqp.as_task_v2(
                str(uuid4()), fulfil.name, (orjson.loads(line),), ignore_result=True, argsrepr="(…)", kwargsrepr="{}")
            message = channel.prepare_message(
                orjson.dumps(task.body), content_type="application/json", content_encoding="utf-8", headers=task.headers,
                properties={**task.properties, "delivery_mode": 2})
            unconfirmed.add(tag)
            channel.basic_publish(message, exchange="", routing_key=QUEUE)
            while len(unconfirmed) >= unconfirmed_max:
                connection.drain_events()
        while unconfirmed:
            connection.drain_events()


def fill():
    with app.connection_for_write() as connection, connection.channel() as channel:
        app.amqp.queues[QUEUE](channel).declare()
    lines = sys.stdin.buffer.read().splitlines()
    fork = multiprocessing.get_context("fork")
    halves = [fork.Process(target=publish, args=(lines[n::2],)) for n in range(2)]
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    sys.exit(any(half.exitcode for half in halves))


def drain():
    # All other output goes to stderr, because stdout is only for the lines of the protocol.
    stdout = os.dup(1)
    os.dup2(2, 1)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # that it runs as root, where it does

    said = 0

    def report():
        nonlocal said
        done = Counted.done
        if done != said:
            said = done
            os.write(stdout, b'{"done":%d}\n' % done)

    @signals.worker_ready.connect(weak=False)
    def on_ready(sender, **_):
        os.write(stdout, b'{"ready":true}\n')
        # This runs in the worker's own loop. So the loop also notices within 50 ms that it has to stop.
        sender.timer.call_repeatedly(0.05, report)

    try:
        app.worker_main([
            "--quiet", "worker", "--loglevel=ERROR", f"--queues={QUEUE}", f"--pool={POOL}", f"--concurrency={CONCURRENCY}",
            "--without-gossip", "--without-mingle", "--without-heartbeat"])
    finally:
        report()


if __name__ == "__main__":
    {"fill": fill, "drain": drain}[sys.argv[1]]()
