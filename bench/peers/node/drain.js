// Drains the queue `fulfilment` into Postgres: node drain.js single|cte

import amqp from 'amqplib'
import * as variants from './apply.js'
import { Refused, parse } from './message.js'
import { connect, number, progress, say, sleep } from './program.js'

const apply = variants[process.argv[2]]
if (!apply) throw new Error('usage: node drain.js single|cte')

// Each connection works on one message at a time. The other prefetched messages wait in the pool's queue.
const pool = await connect(number('PEER_CONNECTIONS', 32))
const broker = await amqp.connect(process.env.AMQP_URL)
const channel = await broker.createChannel()
await channel.prefetch(number('PEER_PREFETCH', 128))

let stopping = false
const underWay = new Set()
// Without the broker there is nothing to do, so the program ends. A supervisor starts it again.
for (const lost of [broker, channel]) {
  lost.on('error', (error) => console.error(`broker: ${error.message}`))
  lost.on('close', () => stopping || process.exit(1))
}

async function settle(delivery) {
  try {
    await apply(pool, parse(delivery.content))
    channel.ack(delivery)
    count.done++
  } catch (error) {
    const isRefused = error instanceof Refused
    if (!isRefused) {
      console.error(`database: ${error.message}`)
      await sleep(200) // the broker brings it again at once: not to turn in a tight circle
    }
    channel.nack(delivery, false, !isRefused)
  }
}

say({ ready: true })
const count = progress()
const { consumerTag } = await channel.consume('fulfilment', (delivery) => {
  if (!delivery) process.exit(1) // the queue is gone
  if (stopping) return // goes back to the queue when the channel is closed
  const settling = settle(delivery).finally(() => underWay.delete(settling))
  underWay.add(settling)
})

process.on('SIGTERM', async () => {
  stopping = true
  await channel.cancel(consumerTag)
  await Promise.race([Promise.all(underWay), sleep(4000)])
  await broker.close()
  process.exit(0)
})
