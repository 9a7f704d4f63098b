"""A drain peer: aio-pika and asyncpg, one transaction a message.

usage: aio_pika_asyncpg.py single|cte

    single  BEGIN, lock the order, inbox, grant, order, COMMIT: a round trip each
    cte     the same as one autocommit statement
"""

import asyncio
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from datetime import datetime, timezone
from functools import partial

import aio_pika
import asyncpg
import orjson
import uvloop

VARIANT = sys.argv[1] if len(sys.argv) > 1 else "single"
PROCESSES = int(os.environ.get("PEER_PROCESSES", "1"))
# The limits of each process.
POOL = int(os.environ.get("PEER_POOL", "16"))
PREFETCH = int(os.environ.get("PEER_PREFETCH", "128"))

LOCK = """
SELECT o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.is_granted
FROM payments p JOIN orders o ON o.id = p.order_id
WHERE p.payment_id = $1 AND p.provider = $2 AND p.provider_account = ''
FOR NO KEY UPDATE OF o"""

ADMIT = """
INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
VALUES ($1, $2, $3, $4, now(), 'captured') ON CONFLICT DO NOTHING"""

GRANT = """
INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
VALUES ($1, $2, $3, $4, now())"""

FULFIL = """
UPDATE orders SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
    facts = $2, updated_at = now()
WHERE id = $1"""

# If there is no row, there is no such payment, or its amount is not that of the order.
ALL_IN_ONE = """
WITH sold AS (
    SELECT o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.is_granted
    FROM payments p JOIN orders o ON o.id = p.order_id
    WHERE p.payment_id = $1 AND p.provider = $2 AND p.provider_account = ''
    FOR NO KEY UPDATE OF o
), paid AS (
    SELECT * FROM sold WHERE amount_minor = $3 AND currency = $4
), admitted AS (
    INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
    SELECT $5, $6, $7, id, now(), 'captured' FROM paid
    ON CONFLICT DO NOTHING RETURNING order_id
), granted AS (
    INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
    SELECT p.id, p.account_id, p.credits, $6, now()
    FROM admitted a JOIN paid p ON p.id = a.order_id WHERE NOT p.is_granted
    RETURNING order_id
), fulfilled AS (
    UPDATE orders o SET status = 'fulfilled', is_granted = true, credits_granted = o.credits, version = o.version + 1,
        facts = $8, updated_at = now()
    FROM granted g WHERE o.id = g.order_id
)
SELECT true FROM paid"""


class Refused(Exception):
    """Will never be applied, however often it comes."""


class Paid:
    """What a message says."""

    __slots__ = ("provider", "message_id", "payment_id", "amount", "currency", "day", "digest", "facts")

    def __init__(self, body):
        try:
            said = orjson.loads(body)
            status = said["status"]
            if status["type"] != "captured" or said["livemode"]:
                raise Refused("not a captured test payment")
            self.provider = said["provider"]
            self.message_id = said["message_id"]
            self.payment_id = said["payment_id"]
            self.amount = status["amount_minor"]
            self.currency = status["currency"]
            self.day = datetime.fromisoformat(said["occurred_at"]).astimezone(timezone.utc).date()
        except (ValueError, KeyError, TypeError) as error:
            raise Refused("malformed") from error
        fact = f"{self.provider} {self.payment_id} captured {self.amount} {self.currency}"
        self.digest = hashlib.sha256(fact.encode()).digest()[:16]
        self.facts = '{"captured_total_minor":%d}' % self.amount


async def apply_single(sql, paid):
    async with sql.transaction():
        order = await sql.fetchrow(LOCK, paid.payment_id, paid.provider)
        if order is None or order["amount_minor"] != paid.amount or order["currency"] != paid.currency:
            raise Refused("not what was sold")
        order_id = order["id"]
        admitted = await sql.execute(ADMIT, paid.day, paid.message_id, paid.digest, order_id)
        if admitted == "INSERT 0 0" or order["is_granted"]:
            return
        await sql.execute(GRANT, order_id, order["account_id"], order["credits"], paid.message_id)
        await sql.execute(FULFIL, order_id, paid.facts)


async def apply_cte(sql, paid):
    known = await sql.fetchval(
        ALL_IN_ONE, paid.payment_id, paid.provider, paid.amount, paid.currency,
        paid.day, paid.message_id, paid.digest, paid.facts)
    if known is None:
        raise Refused("not what was sold")


async def leave_as_it_is(_sql):
    """No transaction of ours changes a connection's state: resetting it would be a further round trip a message."""


async def drain(apply, done, slot, ready, go):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    pool = await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL, max_inactive_connection_lifetime=0,
        reset=leave_as_it_is)
    broker = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await broker.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue("fulfilment", ensure=False)

    # aio-pika runs this as a task for each message. The pool limits how many work at the same time.
    async def on_message(message):
        try:
            paid = Paid(message.body)
            async with pool.acquire() as sql:
                if stop.is_set():
                    return  # goes back to the queue with the channel
                await apply(sql, paid)
            await message.ack()
            done[slot] += 1
        except Refused as error:
            print(f"refused {message.message_id}: {error}", file=sys.stderr)
            await message.reject(requeue=False)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            if stop.is_set():
                return  # the pool closes under those that wait for it
            print(f"given back: {error!r}", file=sys.stderr)
            await message.nack(requeue=True)

    ready.release()
    await asyncio.get_running_loop().run_in_executor(None, go.wait)
    tag = await queue.consume(on_message)
    await stop.wait()
    await queue.cancel(tag)
    try:
        await asyncio.wait_for(pool.close(), 3)  # waits for what is at work
    except asyncio.TimeoutError:
        pool.terminate()
    await asyncio.sleep(0.05)  # the last acks
    await broker.close()


def work(apply, done, slot, ready, go):
    uvloop.run(drain(apply, done, slot, ready, go))


def main():
    apply = {"single": apply_single, "cte": apply_cte}[VARIANT]
    fork = multiprocessing.get_context("fork")
    done = fork.RawArray("Q", PROCESSES)  # each process counts in its own place
    ready, go = fork.Semaphore(0), fork.Event()
    workers = [fork.Process(target=work, args=(apply, done, slot, ready, go)) for slot in range(PROCESSES)]
    for worker in workers:
        worker.start()
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    for _ in workers:
        while not ready.acquire(timeout=0.5):
            if stopped or not all(worker.is_alive() for worker in workers):
                sys.exit(1)
    say = partial(print, flush=True)
    say('{"ready":true}')
    go.set()
    said = 0

    def report(said):
        now = sum(done)
        if now != said:
            say(json.dumps({"done": now}))
        return now

    while not stopped and all(worker.is_alive() for worker in workers):
        time.sleep(0.05)
        said = report(said)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()
    report(said)
    sys.exit(0 if stopped else 1)


main()
