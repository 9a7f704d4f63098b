// The queue is in Postgres itself, with pg-boss. This is other work than the peers do, so the benchmark gives no ratio.
//
//   node pgboss.js fill      reads JSON lines from stdin and makes them jobs of the queue `fulfilment`
//   node pgboss.js drain     processes them

import { createInterface } from 'node:readline'
import PgBoss from 'pg-boss'
import { single } from './apply.js'
import { Refused, check } from './message.js'
import { connect, number, progress, say } from './program.js'

const queue = 'fulfilment'

function boss(options) {
  const made = new PgBoss({ connectionString: process.env.DATABASE_URL, ...options })
  made.on('error', (error) => console.error(`pg-boss: ${error.message}`))
  return made
}

async function fill() {
  const made = await boss({ schedule: false }).start()
  await made.createQueue(queue)
  let jobs = []
  const insert = async () => {
    if (jobs.length > 0) await made.insert(jobs)
    jobs = []
  }
  for await (const line of createInterface({ input: process.stdin })) {
    if (line !== '') jobs.push({ name: queue, data: JSON.parse(line) })
    if (jobs.length === 1000) await insert()
  }
  await insert()
  await made.stop()
  process.exit(0)
}

async function drain() {
  const workers = number('PEER_WORKERS', 2)
  const batchSize = number('PEER_BATCH', 200)
  const pool = await connect(number('PEER_CONNECTIONS', 32))
  const made = await boss({ schedule: false, max: workers * 2 + 1 }).start()
  say({ ready: true })
  const count = progress()

  // A batch of jobs is fetched and completed at once, and each job has a transaction of its own. A job that fails is not
  // completed with the others: pg-boss delivers it again, twice.
  const settle = async (job) => {
    try {
      await single(pool, check(job.data))
      count.done++
    } catch (error) {
      if (!(error instanceof Refused)) console.error(`database: ${error.message}`)
      await made.fail(queue, job.id, { message: error.message })
    }
  }
  for (let i = 0; i < workers; i++) {
    const id = await made.work(queue, { batchSize, pollingIntervalSeconds: 0.5 }, async (jobs) => {
      // If the batch was full, there are more jobs, so the worker must not sleep before it asks again.
      if (jobs.length === batchSize) made.notifyWorker(id)
      await Promise.all(jobs.map(settle))
    })
  }
  process.on('SIGTERM', async () => {
    await made.stop({ timeout: 3000 })
    process.exit(0)
  })
}

const command = { fill, drain }[process.argv[2]]
if (!command) throw new Error('usage: node pgboss.js fill|drain')
await command()
