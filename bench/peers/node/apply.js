// The statements for one message. A statement that has a name is prepared once for each connection.

import { Refused, day, digest } from './message.js'

const lockOrder = {
  name: 'lock_order',
  text: `
    SELECT o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.is_granted
    FROM payments p JOIN orders o ON o.id = p.order_id
    WHERE p.payment_id = $1 AND p.provider = $2 AND p.provider_account = ''
    FOR NO KEY UPDATE OF o`,
}
const admitMessage = {
  name: 'admit_message',
  text: `
    INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
    VALUES ($1, $2, $3, $4, now(), 'captured') ON CONFLICT DO NOTHING`,
}
const insertGrant = {
  name: 'insert_grant',
  text: `
    INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
    VALUES ($1, $2, $3, $4, now())`,
}
const fulfilOrder = {
  name: 'fulfil_order',
  text: `
    UPDATE orders SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
        facts = jsonb_build_object('captured_total_minor', $2::bigint), updated_at = now()
    WHERE id = $1`,
}
const begin = { name: 'begin', text: 'BEGIN' }
const commit = { name: 'commit', text: 'COMMIT' }

/**
 * One transaction of several statements. Statements that do not need each other's answers are sent together. If one fails,
 * the COMMIT after it rolls back.
 */
export async function single(pool, m) {
  const client = await pool.connect()
  let broken
  try {
    const [, { rows }] = await all([client.query(begin), client.query(lockOrder, [m.payment_id, m.provider])])
    const order = rows[0]
    // pg returns bigints as text.
    if (!order || Number(order.amount_minor) !== m.status.amount_minor || order.currency !== m.status.currency) {
      throw new Refused('no order, or of another amount')
    }
    const admitted = await client.query(admitMessage, [day(m), m.message_id, digest(m), order.id])
    const rest = []
    if (admitted.rowCount > 0 && !order.is_granted) {
      rest.push(client.query(insertGrant, [order.id, order.account_id, order.credits, m.message_id]))
      rest.push(client.query(fulfilOrder, [order.id, m.status.amount_minor]))
    }
    await all([...rest, client.query(commit)])
  } catch (error) {
    await client.query('ROLLBACK').catch((second) => { broken = second })
    throw error
  } finally {
    client.release(broken)
  }
}

// Waits for all of them, even if one fails, because the connection is free only then.
async function all(promises) {
  const results = await Promise.allSettled(promises)
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
  return results.map((result) => result.value)
}

// The reads see the rows as they were when the statement began. The result is still correct: the lock and the update use the
// newest version of the order's row, and ON CONFLICT sees what others have committed in the meantime.
const applyMessage = {
  name: 'apply_message',
  text: `
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
    SELECT coalesce((SELECT is_paid FROM locked), false) AS is_paid`,
}

/** The same work as one statement, which is a transaction by itself. */
export async function cte(pool, m) {
  const { amount_minor: amount, currency } = m.status
  const values = [m.payment_id, m.provider, amount, currency, day(m), m.message_id, digest(m)]
  const { rows } = await pool.query(applyMessage, values)
  if (!rows[0].is_paid) throw new Refused('no order, or of another amount')
}
