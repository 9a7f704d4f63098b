// Receives Stripe's webhooks and answers 200 when the broker has confirmed their message. If PEER_PROCESSES is above 1, that
// many processes share the port.

import amqp from 'amqplib'
import express from 'express'
import { createHmac, timingSafeEqual } from 'node:crypto'
import cluster from 'node:cluster'
import { number, say } from './program.js'

const TOLERANCE_S = 300
const secret = process.env.STRIPE_WEBHOOK_SECRET
if (!secret) throw new Error('STRIPE_WEBHOOK_SECRET is not set')

/** Whether one of the header's signatures fits the time and the body, and the time is close to now. */
function isSigned(header, body) {
  let time
  const signatures = []
  for (const part of (header ?? '').split(',')) {
    const [name, value] = part.split('=', 2)
    if (name === 't') time = value
    if (name === 'v1' && value) signatures.push(Buffer.from(value, 'hex'))
  }
  if (!time || !(Math.abs(Date.now() / 1000 - Number(time)) <= TOLERANCE_S)) return false
  const expected = createHmac('sha256', secret).update(`${time}.`).update(body).digest()
  return signatures.some((signature) => signature.length === expected.length && timingSafeEqual(signature, expected))
}

/** The event as a message of contract/payment-status.v1.schema.json, or null if it is not about a captured payment. */
function translate(event) {
  if (event.type !== 'payment_intent.succeeded') return null
  const intent = event.data.object
  return {
    provider: 'stripe',
    message_id: `stripe:${event.account ?? ''}:${event.id}`,
    payment_id: intent.id,
    related_ids: intent.latest_charge ? [intent.latest_charge] : [],
    provider_account: event.account ?? null,
    order_id: intent.metadata?.order_id ?? null,
    status: { type: 'captured', amount_minor: intent.amount_received, currency: intent.currency.toUpperCase() },
    occurred_at: new Date(event.created * 1000).toISOString(),
    livemode: event.livemode,
  }
}

/** Returns a function that publishes a message and resolves when the broker has confirmed it. */
async function publisher() {
  const broker = await amqp.connect(process.env.AMQP_URL)
  const channel = await broker.createConfirmChannel()
  // Without the broker there is nothing to do, so the program ends. A supervisor starts it again.
  for (const lost of [broker, channel]) {
    lost.on('error', (error) => console.error(`broker: ${error.message}`))
    lost.on('close', () => process.exit(1))
  }
  // A message that reaches no queue is first returned and then confirmed. Two copies of a message may be confused with each
  // other. That is acceptable: one of them is kept, and the sender of the other one tries again.
  const returned = new Map()
  channel.on('return', ({ properties: { messageId: id } }) => returned.set(id, (returned.get(id) ?? 0) + 1))
  return (message) =>
    new Promise((resolve, reject) => {
      const id = message.message_id
      const properties = {
        persistent: true,
        mandatory: true,
        messageId: id,
        type: 'payment-status.v1',
        contentType: 'application/json',
      }
      channel.publish('payments', 'payment.stripe', Buffer.from(JSON.stringify(message)), properties, (error) => {
        if (error) return reject(error)
        const times = returned.get(id)
        if (!times) return resolve()
        if (times > 1) returned.set(id, times - 1)
        else returned.delete(id)
        reject(new Error('no queue takes it'))
      })
    })
}

async function serve() {
  const publish = await publisher()
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.post('/webhooks/stripe', express.raw({ type: () => true, limit: '256kb' }), async (request, response) => {
    const body = request.body
    if (!Buffer.isBuffer(body) || !isSigned(request.get('stripe-signature'), body)) return response.status(401).end()
    let message
    try {
      message = translate(JSON.parse(body))
    } catch {
      return response.status(400).end()
    }
    if (message) {
      try {
        await publish(message)
      } catch (error) {
        console.error(`publish: ${error.message}`)
        return response.status(503).end()
      }
    }
    response.status(200).end()
  })
  return new Promise((resolve, reject) => {
    const server = app.listen(number('PORT', 8080, 0), '127.0.0.1', (error) => (error ? reject(error) : resolve(server)))
  })
}

const processes = number('PEER_PROCESSES', 1)
if (cluster.isPrimary && processes > 1) {
  let listening = 0
  cluster.on('listening', (_, { address, port }) => {
    if (++listening === processes) say({ listening: `${address}:${port}` })
  })
  let stopping = false
  cluster.on('exit', () => {
    if (!stopping) process.exit(1)
    if (Object.keys(cluster.workers).length === 0) process.exit(0)
  })
  for (let i = 0; i < processes; i++) cluster.fork()
  process.on('SIGTERM', () => {
    stopping = true
    for (const one of Object.values(cluster.workers)) one.process.kill('SIGTERM')
  })
} else {
  const server = await serve()
  const { address, port } = server.address()
  if (cluster.isPrimary) say({ listening: `${address}:${port}` })
  process.on('SIGTERM', () => {
    // Running requests are still answered, and idle connections are closed.
    server.close(() => process.exit(0))
    setTimeout(() => process.exit(0), 4000)
  })
}
