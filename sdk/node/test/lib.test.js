'use strict'
// The parts of lib, each alone: no handoff runs here.
const test = require('node:test')
const assert = require('assert')
const { EventEmitter } = require('events')
const fs = require('fs')
const http = require('http')
const path = require('path')
const { root, folder } = require('./helper')
const { codes } = require('../lib/errors')
const { Client } = require('../lib/client')
const { flags, seconds } = require('../lib/master')
const { Mirror } = require('../lib/mirror')
const { Outbox } = require('../lib/outbox')

test('errors: README.md and index.d.ts list every code, and no other', () => {
  const all = Object.keys(codes).sort()
  const own = all.filter((code) => code.startsWith('HANDOFF_'))
  const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8')
  assert.deepStrictEqual([...readme.matchAll(/^\| `(\w*ERR_\w+)` \|/gm)].map((m) => m[1]).sort(), all)
  const types = fs.readFileSync(path.join(root, 'index.d.ts'), 'utf8')
  assert.deepStrictEqual([...types.matchAll(/'(HANDOFF_ERR_\w+)'/g)].map((m) => m[1]).sort(), own)
  for (const code of all) {
    const err = new codes[code]('a', 'b')
    assert.ok(err instanceof Error && err.code === code && !/%[sd]/.test(err.message), code)
  }
  assert.strictEqual(new codes.HANDOFF_ERR_INVALID_ARGUMENT('x').name, 'TypeError')
})

test('settings as flags', () => {
  assert.deepStrictEqual(flags({ workers: 2, readyTimeout: seconds(1.5), hook: ['a=b', 'c=d'], surge: undefined, force: true }),
    ['--workers=2', '--ready-timeout=1500ms', '--hook=a=b', '--hook=c=d', '--force=true'])
  assert.deepStrictEqual([seconds('90s'), seconds(undefined), seconds(null)], ['90s', undefined, undefined])
})

// master is a control socket that answers each request by the next of the script.
async function master (t, ...script) {
  const dir = folder(t, {})
  const m = { socket: path.join(dir, 'app.sock'), asked: [], changed: new EventEmitter() }
  m.listen = () => new Promise((resolve) => {
    m.server = http.createServer((req, res) => {
      let body = ''
      req.on('data', (d) => { body += d }).on('end', () => {
        m.asked.push(`${req.method} ${req.url}${body && ' ' + body}`)
        const next = script.shift()
        if (next) next(res, req)
        m.changed.emit('asked')
      })
    }).listen(m.socket, resolve)
  })
  m.close = () => new Promise((resolve) => { m.server.close(resolve); m.server.closeAllConnections && m.server.closeAllConnections() })
  t.after(() => m.server && m.close())
  return m
}
const answers = (status, body) => (res) => { res.statusCode = status; res.end(typeof body === 'string' ? body : JSON.stringify(body)) }
const breaks = (res) => res.destroy()

test('client: a call waits for the next master; it is repeated when that does no harm', async (t) => {
  const m = await master(t, answers(503, { error: 'the master has ended' }), breaks, answers(200, { generation: 2 }), breaks)
  const client = new Client(m.socket)
  const reload = client.request('POST', '/v1/reload', { idempotent: true })
  await m.listen() // nobody was there yet
  assert.deepStrictEqual(await reload, { generation: 2 })
  assert.deepStrictEqual(m.asked, Array(3).fill('POST /v1/reload'))
  await assert.rejects(client.request('POST', '/v1/slots/0/restart'), { code: 'HANDOFF_ERR_NO_RESPONSE' })
  assert.strictEqual(m.asked.length, 4)
})

test('client: a refusal has the code of the API; after close every call fails', async (t) => {
  const m = await master(t, answers(409, { error: 'worker 1 has no channel', code: 'no_channel' }))
  await m.listen()
  const client = new Client(m.socket)
  await assert.rejects(client.request('POST', '/v1/workers/1/message', { body: '{"a":1}' }),
    { code: 'HANDOFF_ERR_REFUSED', refusal: 'no_channel', message: 'handoff: worker 1 has no channel' })
  assert.deepStrictEqual(m.asked, ['POST /v1/workers/1/message {"a":1}'])
  client.close()
  await m.close()
  await assert.rejects(client.request('GET', '/v1/status'), { code: 'HANDOFF_ERR_ENDED' })
})

test('client: events are followed over broken connections, older binaries and other masters', async (t) => {
  const events = (master, text, end = true) => (res) => {
    res.setHeader('Handoff-Master', master)
    end ? res.end(text) : res.write(text)
  }
  const m = await master(t,
    answers(404, { error: 'unknown request GET /v1/worker-events' }),
    events('a', '1 {"event":"one"}\n2 {"event":"two"}\n3 {"eve'), // it breaks in the middle
    events('a', '2 {"event":"two"}\n3 {"event":"three"}\n6 {"event":"six"}\n'),
    events('b', '1 {"event":"other"}\n', false),
    answers(200, {}))
  await m.listen()
  const heard = []
  const client = new Client(m.socket)
  t.after(() => client.close())
  await new Promise((resolve) => client.follow({
    event: (e) => { heard.push(e.event); if (e.event === 'other') resolve() },
    lost: (n) => heard.push(n),
    replaced: () => heard.push('replaced')
  }))
  assert.deepStrictEqual(heard, ['one', 'two', 'three', 2, 'six', 'replaced', 'other'])
  assert.deepStrictEqual(m.asked, [
    'GET /v1/worker-events?after=0&of=null', 'GET /v1/told?after=0&of=null', 'GET /v1/told?after=2&of=a', 'GET /v1/told?after=6&of=a'
  ])
  await client.sync()
  assert.strictEqual(m.asked[4], 'POST /v1/told/status')
})

test('outbox: in order, again while the worker does not read, and bounded', async () => {
  const delivered = []
  const failed = []
  let open = true
  let finish, release
  const finished = new Promise((resolve) => { finish = resolve })
  const stuck = new Promise((resolve) => { release = resolve })
  const refuse = (refusal) => () => { throw Object.assign(new Error(refusal), { refusal }) }
  const script = [refuse('worker_busy'), refuse('worker_busy'), () => {}, () => {}, refuse('no_channel'), () => stuck]
  const box = new Outbox(7, {
    isOpen: () => open,
    failed: (err) => { if (failed.push(err.code) === 127) finish() },
    deliver: async (body) => {
      await script.shift()()
      delivered.push(JSON.parse(body))
    }
  })
  const sent = (message) => new Promise((resolve) => box.send(message, resolve))
  assert.deepStrictEqual(await Promise.all([sent(1), sent(2)]), [null, null])
  assert.deepStrictEqual(delivered, [1, 2])
  assert.strictEqual((await sent(3)).code, 'ERR_IPC_CHANNEL_CLOSED')
  assert.strictEqual((await sent('x'.repeat(1 << 20))).code, 'HANDOFF_ERR_MESSAGE_TOO_LARGE')
  assert.throws(() => box.send(undefined), { code: 'ERR_MISSING_ARGS' })
  const half = 'x'.repeat(1 << 19)
  for (let i = 0; i < 127; i++) assert.strictEqual(box.send(half), false)
  assert.strictEqual((await sent(half)).code, 'HANDOFF_ERR_WORKER_BUSY')
  open = false
  assert.strictEqual(box.send('late'), false)
  release() // the one under way is delivered, those behind it are not
  await finished
  assert.deepStrictEqual([new Set(failed), delivered.length, box.size], [new Set(['ERR_IPC_CHANNEL_CLOSED']), 3, 0])
})

// mirror records what its master emits, as text.
function mirror () {
  const master = new EventEmitter()
  const m = { said: [], syncs: 0 }
  const names = (w) => w && w.id !== undefined ? 'w' + w.id : w
  for (const name of ['fork', 'online', 'listening', 'ready', 'message', 'leaving', 'draining', 'disconnect', 'exit', 'live', 'failed']) {
    master.on(name, (...args) => m.said.push([name, ...args.map(names)].filter((a) => a !== undefined).join(' ')))
  }
  m.mirror = new Mirror(master, async () => { m.syncs++ })
  m.hears = (event, worker, more) => m.mirror.event({ event, worker, slot: 0, pid: 100 + worker, generation: 1, ...more })
  m.now = () => m.said.splice(0)
  return m
}

test('mirror: the life of a worker', () => {
  const m = mirror()
  m.hears('worker.started', 1)
  m.hears('worker.started', 1)
  const w = m.mirror.workers.get(1)
  assert.strictEqual(require('cluster').workers[1], w)
  for (const event of ['node.online', 'node.online', 'node.listening', 'worker.ready', 'worker.ready']) m.hears(event, 1, { address: 'here' })
  assert.deepStrictEqual(m.now(), ['fork w1', 'online w1', 'listening w1 here', 'ready w1'])
  m.mirror.event({ event: 'cluster.started', generation: 1 })
  m.hears('worker.draining', 1)
  assert.deepStrictEqual([w.state, w.exitedAfterDisconnect, w.leaving], ['disconnecting', true, true])
  m.hears('node.disconnect', 1)
  m.hears('worker.shutdown', 1, { code: 0 })
  assert.deepStrictEqual(m.now(), ['live 1', 'leaving w1', 'draining w1', 'disconnect w1', 'exit w1 0 '])
  assert.deepStrictEqual([w.state, w.isDead(), w.isConnected(), require('cluster').workers[1]], ['dead', true, false, undefined])
  m.hears('worker.ready', 9) // of nobody
  assert.deepStrictEqual(m.now(), [])
})

test('mirror: events that are missing are made up for from the status', () => {
  const m = mirror()
  m.hears('worker.started', 1)
  m.hears('worker.started', 2)
  m.hears('worker.ready', 2)
  m.now()
  m.mirror.replaced()
  assert.strictEqual(m.syncs, 1)
  m.hears('node.message', 3, { message: 'early' }) // its start is among what is missing
  assert.deepStrictEqual(m.now(), [])
  m.mirror.event({
    event: 'cluster.status',
    status: { generation: 2, workers: [{ worker: 2, phase: 'draining', ready_at: 'then' }, { worker: 3, phase: 'serving', ready_at: 'then' }] }
  })
  assert.deepStrictEqual(m.now(), ['disconnect w1', 'exit w1  ', 'online w2', 'leaving w2', 'draining w2', 'fork w3', 'online w3', 'ready w3', 'message w3 early', 'live 2'])
  m.mirror.event({ event: 'cluster.reloaded', generation: 2 }) // the status has said so
  m.mirror.end()
  assert.deepStrictEqual(m.now(), ['disconnect w2', 'exit w2  ', 'disconnect w3', 'exit w3  '])
})
