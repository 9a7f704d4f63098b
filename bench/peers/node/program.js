// What the peers share: numbers from the environment, a pool with open connections, and the count on stdout.

import pg from 'pg'

/** Reads a whole number from the environment. */
export function number(name, otherwise, least = 1) {
  const n = Number(process.env[name] || otherwise)
  if (!Number.isInteger(n) || n < least) throw new Error(`${name} must be a whole number, ${least} or more`)
  return n
}

export const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)

/** A pool of `max` open connections. With `pipeline`, a statement does not wait for the answers to earlier ones. */
export async function connect(max) {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max, pipeline: true, idleTimeoutMillis: 0 })
  pool.on('error', (error) => console.error(`database: ${error.message}`)) // of an idle connection: the pool replaces it
  const clients = await Promise.all(Array.from({ length: max }, () => pool.connect()))
  for (const client of clients) client.release()
  return pool
}

/** Prints the number of finished messages when it has changed. */
export function progress() {
  const count = { done: 0 }
  let said = 0
  setInterval(() => {
    if (count.done !== said) say({ done: (said = count.done) })
  }, 50).unref()
  return count
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
