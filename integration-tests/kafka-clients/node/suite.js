// Named behaviours of one client, run some at a time, each within its own time; a line of JSON for each.
// A behaviour returns when it holds and throws when it does not.
'use strict'

const { isDeepStrictEqual, inspect } = require('node:util')
const { randomBytes } = require('node:crypto')

const AT_ONCE = 4
const SECONDS_EACH = 100
const SOON_SECONDS = 30

class Failed extends Error {}

class Suite {
  constructor(client) {
    this.client = client
    this.bodies = new Map()
  }

  add(behaviour, body) {
    if (this.bodies.has(behaviour)) throw new Error(`${behaviour} is there twice`)
    this.bodies.set(behaviour, body)
  }

  say(fields) {
    process.stdout.write(`${JSON.stringify({ client: this.client, ...fields })}\n`)
  }

  // The arguments are the bootstrap addresses, and the behaviours to run if not all.
  async main() {
    const only = process.argv[3] ? process.argv[3].split(',') : [...this.bodies.keys()]
    const names = [...this.bodies.keys()].filter((name) => only.includes(name))
    this.say({ plan: names })
    const open = [...names]
    const worker = async () => {
      for (let name = open.shift(); name !== undefined; name = open.shift()) await this.runOne(name)
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    // What a behaviour left behind when its time was up must not keep the process.
    process.stdout.write('', () => process.exit(0))
  }

  async runOne(name) {
    const begun = Date.now()
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Failed(`not done after ${SECONDS_EACH} s`)), SECONDS_EACH * 1000)
    })
    let outcome = 'pass'
    let detail = ''
    try {
      await Promise.race([this.bodies.get(name)(process.argv[2].split(',')), late])
    } catch (failure) {
      outcome = 'fail'
      detail = describe(failure)
    }
    clearTimeout(timer)
    this.say({ behaviour: name, outcome, seconds: (Date.now() - begun) / 1000, detail })
  }
}

// The message, and the line of this suite that saw it.
function describe(failure) {
  const kind = failure instanceof Failed ? '' : `${failure.name}: `
  const line = String(failure.stack).split('\n').find((one) => /_behaviours\.js:/.test(one))
  const where = line ? ` (${line.replace(/^.*\/([^/]+:\d+):\d+\)?$/, '$1')})` : ''
  const causes = (failure.errors ?? []).map((one) => one.message).join('; ')
  return `${kind}${failure.message}${causes && `: ${causes}`}${where}`.slice(0, 1000)
}

// A name that nothing else has.
const unique = (hint) => `${hint}-${randomBytes(4).toString('hex')}`

function that(holds, what) {
  if (!holds) throw new Failed(what)
}

function equal(expected, found, what) {
  const short = (value) => inspect(value, { depth: 6, breakLength: Infinity }).slice(0, 300)
  if (!isDeepStrictEqual(expected, found)) {
    throw new Failed(`${what}: expected ${short(expected)}, found ${short(found)}`)
  }
}

// Waits for what comes about at a time that nobody tells. `what` may be a function.
async function eventually(holds, what, seconds = SOON_SECONDS) {
  const deadline = Date.now() + seconds * 1000
  while (!(await holds())) {
    const found = () => (typeof what === 'function' ? what() : what)
    if (Date.now() > deadline) throw new Failed(`not within ${seconds} s: ${found()}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const numbered = (prefix, count, start = 0) => Array.from({ length: count - start }, (_, n) => `${prefix}${start + n}`)

module.exports = { Suite, Failed, unique, that, equal, eventually, numbered }
