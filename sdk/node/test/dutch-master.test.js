'use strict'
// dutch-master's interface, row by row of the seeds (§ 3), and its measured failures
// fixed.
const test = require('node:test')
const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { root, reloads, beside, folder, freePort, server, caller, get, hold, load, sleep, gone, masterOf } = require('./helper')

const MODULE = process.env.HANDOFF_TEST_MODULE || path.join(root, 'dutch-master.js')
const head = (options, start = '') => `
const logger = { }
const plain = (a) => a.err ? { ...a, err: a.err.message } : a
for (const level of ['info', 'warn', 'debug']) logger[level] = (a, b) => say({ name: 'log', level, msg: b === undefined ? a : b, fields: b === undefined ? {} : plain(a) })
logger.child = (fields) => { const l = {}; for (const level of ['info', 'warn', 'debug']) l[level] = (a, b) => say({ name: 'log', level, msg: b === undefined ? a : b, fields: b === undefined ? {} : a, child: fields }); return l }
require(${JSON.stringify(MODULE)})${start}(Object.assign({ worker: require('path').join(__dirname, 'app.js'), logger }, ${options}))
`
async function begin (t, options = '{}', app = server('one'), { start = '', env = {} } = {}) {
  const port = await freePort()
  const dir = folder(t, { 'app.js': app })
  const c = caller(t, dir, head(options, start), { PORT: String(port), ...env })
  c.logs = (msg) => c.until(msg, () => c.said.find((m) => m.name === 'log' && m.msg === msg))
  c.count = (msg) => c.said.filter((m) => m.name === 'log' && m.msg === msg).length
  return { port, dir, c }
}

test('it starts two workers, and logs it like the original', async (t) => {
  const { c, port } = await begin(t)
  assert.deepStrictEqual((await c.logs('Starting cluster')).fields, { numWorkers: 2 })
  assert.strictEqual((await c.logs('Cluster ready')).fields.workers.length, 2)
  assert.strictEqual(c.count('Creating new worker'), 2)
  const w = await c.logs('Worker listening')
  assert.ok(w.child.workerId > 0 && w.child.workerPid > 0)
  assert.strictEqual((await get(port)).version, 'one')
})

test('.start, no logger, numWorkers as a string and as a function, workerEnvironment, beforeFork', async (t) => {
  const { c } = await begin(t, '{ numWorkers: () => 3, workerEnvironment: { COLOUR: "green" }, beforeFork: () => say({ name: "fork" }) }', server('one'), { start: '.start' })
  await c.logs('Cluster ready')
  assert.strictEqual(c.said.filter((m) => m.name === 'fork').length, 3)
  const two = await begin(t, '{ numWorkers: "1", logger: undefined, workerEnvironment: { COLOUR: "green" } }')
  await two.c.until('an answer', () => true)
  for (;;) {
    const answer = await get(two.port).catch(() => null)
    if (answer) { assert.strictEqual(answer.env, 'green'); break }
  }
})

for (const [signal, options] of [['SIGUSR2', '{}'], ['SIGHUP', '{ restartSignal: "SIGHUP" }']]) {
  reloads(`${signal}: a restart that loses nothing`, async (t) => {
    const { c, port, dir } = await begin(t, options)
    await c.logs('Cluster ready')
    const l = load(t, port)
    await l.atLeast(30)
    fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
    process.kill(c.pid, signal)
    assert.deepStrictEqual((await c.logs('Restart requested')).fields, { signal })
    await c.logs('Restart complete')
    assert.strictEqual((await get(port)).version, 'two')
    await l.nothingLost()
    assert.strictEqual(c.count('Worker exited'), 2)
    assert.ok(c.count('Restarting worker') === 2 && c.count('Replacement worker available - disconnecting') === 2)
  })
}

beside(() => {
  reloads('a request that takes 7 s more is finished in a restart (before: cut at 5.4 s)', async (t) => {
    const { c, port } = await begin(t, '{ numWorkers: 1 }')
    await c.logs('Cluster ready')
    const { pid } = await get(port)
    const slow = await hold(port)
    process.kill(c.pid, 'SIGUSR2')
    await c.logs('Disconnecting worker')
    await sleep(7000)
    assert.strictEqual((await slow.release()).pid, pid)
    await c.logs('Restart complete')
    assert.notStrictEqual((await get(port)).pid, pid)
  })

  reloads('a replacement that never listens fails the restart, and the next one works (before: none)', async (t) => {
    const { c, port, dir } = await begin(t, '{ readyTimeout: 5 }')
    await c.logs('Cluster ready')
    const l = load(t, port, { clients: 1, keepAlive: 1, pauseMs: 50 })
    fs.writeFileSync(path.join(dir, 'app.js'), 'setInterval(() => {}, 1e3)')
    process.kill(c.pid, 'SIGUSR2')
    assert.match((await c.logs('Restart failed; the previous workers continue')).fields.err, /not ready within 5s/)
    assert.strictEqual((await get(port)).version, 'one')
    fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
    const ends = () => c.count('Restart failed; the previous workers continue') + c.count('Restart complete')
    process.kill(c.pid, 'SIGUSR2')
    await c.until('the end of the restart', () => ends() === 2)
    assert.strictEqual(c.count('Restart complete'), 1)
    assert.strictEqual((await get(port)).version, 'two')
    await l.nothingLost()
  })

  test('a crash at boot is retried with growing waits (before: 43 forks in 3 s)', async (t) => {
    const { c } = await begin(t, '{ numWorkers: 1 }', 'process.exit(1)')
    const began = Date.now()
    await c.until('3 exits', () => c.count('Worker exited') >= 3)
    assert.ok(Date.now() - began > 1500, 'three starts within a moment')
  })

  reloads('a worker that ignores SIGTERM is killed (before: never), which is logged; so is how workers end', async (t) => {
    const { c, port } = await begin(t, '{ numWorkers: 1 }', server('one', 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000)'))
    await c.logs('Cluster ready')
    const { pid } = await get(port)
    process.kill(c.pid, 'SIGUSR2')
    await c.logs('Restart complete')
    await gone([pid])
    assert.deepStrictEqual((await c.logs('Stopping worker')).fields, { state: 'restarting' })
    for (const msg of ['Disconnecting worker', 'Killing worker', 'Hard-killing worker as it did not die gracefully']) {
      const said = await c.logs(msg)
      assert.deepStrictEqual([said.level, said.child.workerPid], ['debug', pid], msg)
    }
    assert.deepStrictEqual((await c.logs('Worker exited')).fields, { code: null, signal: 'SIGKILL' })
  })
})

reloads('a replacement that crashes does not block later restarts (before: for ever)', async (t) => {
  const { c, port, dir } = await begin(t, '{ numWorkers: 1 }')
  await c.logs('Cluster ready')
  fs.writeFileSync(path.join(dir, 'app.js'), 'process.exit(1)')
  process.kill(c.pid, 'SIGUSR2')
  await c.logs('Restart failed; the previous workers continue')
  assert.strictEqual((await get(port)).version, 'one')
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  process.kill(c.pid, 'SIGUSR2')
  await c.logs('Restart complete')
  assert.strictEqual((await get(port)).version, 'two')
})

reloads('a restart during a restart is ignored, and logged', async (t) => {
  const { c } = await begin(t, '{}', server('one').replace('.listen(', '.listen(').replace('http.createServer', 'const wait = Date.now() + 300; while (Date.now() < wait); http.createServer'))
  await c.logs('Cluster ready')
  process.kill(c.pid, 'SIGUSR2')
  await c.logs('Restart requested')
  process.kill(c.pid, 'SIGUSR2')
  assert.strictEqual((await c.logs('Restart already in process, ignoring this request')).level, 'warn')
  await c.logs('Restart complete')
})

test('request-restart: one is replaced', async (t) => {
  const { c, port } = await begin(t, '{ numWorkers: 1 }', server('one', 'process.on("SIGUSR1", () => process.send({ event: "request-restart" }))'))
  await c.logs('Cluster ready')
  const l = load(t, port)
  await l.atLeast(30)
  process.kill((await get(port)).pid, 'SIGUSR1')
  await c.logs('Worker dying')
  await c.logs('Worker exited')
  await l.nothingLost()
})

reloads('SIGTERM drains and ends with 0, also after a restart and a crash (before: 10 s and 1)', async (t) => {
  const { c, port } = await begin(t)
  await c.logs('Cluster ready')
  process.kill(c.pid, 'SIGUSR2')
  await c.logs('Restart complete')
  const { pid } = await get(port)
  process.kill(pid, 'SIGKILL')
  await c.until('a replacement', () => c.count('Worker listening') === 5)
  const slow = await hold(port)
  process.kill(c.pid, 'SIGTERM')
  await c.logs('Shutdown requested')
  assert.strictEqual((await slow.release()).version, 'one')
  assert.deepStrictEqual(await c.exited, { code: 0, signal: null })
  assert.ok(c.count('Shutdown requested') && c.count('Cluster shutdown cleanly'))
})

test('an exit code is logged, and beforeFork is called for the replacement', async (t) => {
  const { c, port } = await begin(t, '{ numWorkers: 1, beforeFork: () => say({ name: "fork" }) }', server('one', 'process.on("SIGUSR1", () => process.exit(5))'))
  await c.logs('Cluster ready')
  process.kill((await get(port)).pid, 'SIGUSR1')
  assert.deepStrictEqual((await c.logs('Worker exited')).fields, { code: 5, signal: null })
  await c.until('a second fork', () => c.said.filter((m) => m.name === 'fork').length === 2)
})

test('beforeFork is called for the replacement that a worker asks for', async (t) => {
  const { c, port } = await begin(t, '{ numWorkers: 1, beforeFork: () => say({ name: "fork" }) }', server('one', 'process.on("SIGUSR1", () => process.send({ event: "request-restart" }))'))
  await c.logs('Cluster ready')
  const { pid } = await get(port)
  process.kill(pid, 'SIGUSR1')
  await c.logs('Worker dying')
  await c.logs('Worker exited')
  assert.strictEqual(c.said.filter((m) => m.name === 'fork').length, 2)
  assert.strictEqual(c.count('Creating new worker'), 2)
  assert.notStrictEqual((await get(port)).pid, pid)
})

reloads('kill -9 of the master: nothing is lost, and it restarts after it', async (t) => {
  const { c, port, dir } = await begin(t)
  await c.logs('Cluster ready')
  const l = load(t, port)
  await l.atLeast(30)
  process.kill(masterOf(c.pid).master, 'SIGKILL')
  await l.atLeast(30)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  process.kill(c.pid, 'SIGUSR2')
  await c.logs('Restart complete')
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
})
