'use strict'
// RackMan's programming interface (§ 1.4, 1.5), and its measured failures fixed.
const test = require('node:test')
const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { root, reloads, folder, freePort, caller, get, load, gone, masterOf } = require('./helper')

const MODULE = process.env.HANDOFF_TEST_MODULE || path.join(root, 'rackman.js')
const APP = (word) => `require('http').createServer((q, r) => r.end(JSON.stringify({ version: ${JSON.stringify(word)}, of: process.env.version, port: process.env.port, colour: process.env.COLOUR, pid: process.pid }))).listen(process.env.port)`
const head = (dir, version) => `
const RackMan = require(${JSON.stringify(MODULE)})
const r = new RackMan(${JSON.stringify(dir)}${version === undefined ? '' : ', ' + JSON.stringify(version)})
for (const name of ['workerStarted', 'workerShutdown', 'workerKilling', 'workerCrashed']) r.on(name, (m, w) => say({ name, port: m.port, status: m.status, pid: w.process.pid, worker: w.status }))
r.on('reloading', () => say({ name: 'reloading' }))
r.on('modified', (file, change) => say({ name: 'modified', file, change }))
r.on('error', (err) => say({ name: 'error', message: err.message }))
on('reload', () => r.reload((err) => say({ name: 'reloaded', err: err && err.message })))
on('restartWorker', (port) => r.restartWorker(port))
on('managers', () => say({ name: 'managers', ports: r.managers.map((m) => m.port), statuses: r.managers.map((m) => m.status) }))
on('stop', () => r.stop(() => say({ name: 'stopped' })))
r.start()
`

async function development (t, more = {}) {
  const ports = [await freePort(), await freePort()]
  const dir = folder(t, { 'app.js': APP('one'), '.rackman.json': JSON.stringify({ server: 'app.js', ports, watch: ['*.js'], timeout: 5000, environment: { COLOUR: 'red' }, ...more }) })
  const place = folder(t, {})
  const c = caller(t, place, head(dir))
  const started = [await c.hears('workerStarted'), await c.hears('workerStarted')]
  return { ports, dir, c, started }
}

test('a worker for each port; events with manager and worker', async (t) => {
  const { ports, started } = await development(t)
  assert.deepStrictEqual(started.map((s) => s.port).sort(), [...ports].sort())
  assert.ok(started.every((s) => s.status === 'Listening' && s.worker === 'Listening'))
  for (const port of ports) {
    const answer = await get(port)
    assert.deepStrictEqual([answer.version, answer.of, answer.port, answer.colour], ['one', 'false', String(port), 'red'])
  }
})

reloads('a changed file reloads, and nothing is lost', async (t) => {
  const { ports, dir, c } = await development(t)
  const l = load(t, ports[0])
  fs.writeFileSync(path.join(dir, 'app.js'), APP('two'))
  const m = await c.hears('modified')
  assert.match(m.file, /app\.js$/)
  assert.strictEqual(m.change, 'changed')
  await c.hears('reloading')
  await c.hears('workerStarted')
  await c.hears('workerStarted')
  await c.hears('workerShutdown')
  await c.hears('workerShutdown')
  assert.strictEqual((await get(ports[0])).version, 'two')
  await l.nothingLost()
})

reloads('a missing server file fails the reload, not the master (before: the site was down)', async (t) => {
  const { ports, dir, c } = await development(t, { watch: [] })
  fs.unlinkSync(path.join(dir, 'app.js'))
  c.do('reload')
  assert.match((await c.hears('reloaded')).err, /app\.js/)
  assert.strictEqual((await get(ports[0])).version, 'one')
})

reloads('modified says whether a file is new, changed or gone', async (t) => {
  const { dir, c } = await development(t)
  for (const [change, f] of [['created', () => fs.writeFileSync(path.join(dir, 'more.js'), '')], ['changed', () => fs.writeFileSync(path.join(dir, 'more.js'), '//')], ['removed', () => fs.unlinkSync(path.join(dir, 'more.js'))]]) {
    f()
    const m = await c.hears('modified')
    assert.deepStrictEqual([path.basename(m.file), m.change], ['more.js', change])
    for (const name of ['workerStarted', 'workerStarted', 'workerShutdown', 'workerShutdown']) await c.hears(name)
  }
})

reloads('a port that is gone from the file is gone from managers, and one that is new is there', async (t) => {
  const { ports, dir, c } = await development(t)
  const file = path.join(dir, '.rackman.json')
  const config = JSON.parse(fs.readFileSync(file))
  const other = await freePort()
  c.do('managers')
  assert.deepStrictEqual((await c.hears('managers')).ports.sort(), [...ports].sort())
  fs.writeFileSync(file, JSON.stringify({ ...config, ports: [ports[1], other] }))
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  c.do('managers')
  const now = await c.hears('managers')
  assert.deepStrictEqual([now.ports.sort(), now.statuses], [[ports[1], other].sort(), ['Listening', 'Listening']])
  assert.strictEqual((await get(other)).port, String(other))
})

test('restartWorker replaces the worker of a port', async (t) => {
  const { ports, c, started } = await development(t)
  const l = load(t, ports[0])
  const before = started.find((s) => s.port === ports[0])
  c.do('restartWorker', ports[0])
  const after = await c.hears('workerStarted')
  assert.strictEqual(after.port, ports[0])
  assert.notStrictEqual(after.pid, before.pid)
  assert.strictEqual((await c.hears('workerShutdown')).pid, before.pid)
  await l.nothingLost()
  c.do('restartWorker', 1)
  assert.match((await c.hears('error')).message, /no worker serves port 1/)
})

test('what the file alone decides is an error that says so', () => {
  const RackMan = require(MODULE)
  const r = new RackMan(__dirname)
  for (const [method, arg, words] of [['addWorker', 3000, /put 3000 into "ports"/], ['addAndStartWorker', 3000, /put 3000 into "ports"/], ['removeWorker', 3000, /take 3000 out of "ports"/], ['addWatch', '*.js', /put "\*\.js" into "watch"/], ['onNewConfig', {}, /write \.rackman\.json/]]) {
    assert.throws(() => r[method](arg), { code: 'HANDOFF_ERR_NOT_SUPPORTED', message: words })
  }
  r.removeWatch('*.js')
})

reloads('kill -9 of the master: nothing is lost, and it reloads after it', async (t) => {
  const { ports, dir, c } = await development(t, { watch: [] })
  const l = load(t, ports[0])
  await l.atLeast(30)
  process.kill(masterOf(c.pid).master, 'SIGKILL')
  await l.atLeast(30)
  fs.writeFileSync(path.join(dir, 'app.js'), APP('two'))
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(ports[0])).version, 'two')
  await l.nothingLost()
})

test('a crash makes one replacement (before, on Node 20: two)', async (t) => {
  const { started, c, ports } = await development(t)
  process.kill(started[0].pid, 'SIGKILL')
  const crashed = await c.hears('workerCrashed')
  assert.strictEqual(crashed.pid, started[0].pid)
  const again = await c.hears('workerStarted')
  assert.strictEqual(again.port, crashed.port)
  await get(ports[0])
  assert.strictEqual(c.said.filter((m) => m.name === 'workerStarted').length, 3)
})

test('stop calls back when all have ended (before: at the first)', async (t) => {
  const { started, c } = await development(t)
  c.do('stop')
  await c.hears('stopped')
  assert.strictEqual(c.said.filter((m) => m.name === 'workerShutdown').length, 2)
  await gone(started.map((s) => s.pid))
})

test('Admin, and a deployment: live, switched, rolled back, fixed', async (t) => {
  const port = await freePort()
  const place = folder(t, {})
  const source = folder(t, { 'app.js': APP('one'), '.rackman.json': JSON.stringify({ server: 'app.js', ports: [port] }) })
  const { Admin } = require('../rackman')
  const admin = new Admin(path.join(place, 'web'))
  await admin.setup()
  assert.strictEqual(await admin.deploy(source, 'v1'), 'v1')
  fs.writeFileSync(path.join(source, 'app.js'), APP('two'))
  assert.strictEqual(await admin.deploy(source, '20150102'), '20150102')
  assert.deepStrictEqual(await admin.list(), ['v1', '20150102'])
  await admin.checkout('v1')
  const c = caller(t, folder(t, {}), head(path.join(place, 'web')))
  await c.hears('workerStarted')
  const one = await get(port)
  assert.deepStrictEqual([one.version, one.of], ['one', 'v1'])
  await admin.checkout('20150102')
  await c.hears('workerShutdown')
  assert.deepStrictEqual([(await get(port)).version, (await get(port)).of], ['two', '20150102'])
  assert.strictEqual(await admin.rollback(), 'v1')
  assert.strictEqual(await admin.head(), 'v1')
  await c.hears('workerShutdown')
  assert.strictEqual((await get(port)).version, 'one')
  await assert.rejects(admin.checkout('nope'), /Couldn't find the target version, nope/)
  c.do('stop')
  await c.hears('stopped')
  const fixed = caller(t, folder(t, {}), head(path.join(place, 'web'), '20150102'))
  await fixed.hears('workerStarted')
  assert.strictEqual((await get(port)).version, 'two')
})

test('version: false is the folder itself, true the live version; without one an error', async (t) => {
  const port = await freePort()
  const config = JSON.stringify({ server: 'app.js', ports: [port] })
  const dir = folder(t, { 'app.js': APP('own'), '.rackman.json': config, '.rack.json': JSON.stringify({ head: 'v1', versions: ['v1'] }) })
  fs.mkdirSync(path.join(dir, 'v1'))
  fs.writeFileSync(path.join(dir, 'v1', 'app.js'), APP('deployed'))
  fs.writeFileSync(path.join(dir, 'v1', '.rackman.json'), config)
  for (const [version, want] of [[undefined, 'own'], [false, 'own'], [true, 'deployed'], ['v1', 'deployed']]) {
    const c = caller(t, folder(t, {}), head(dir, version))
    await c.hears('workerStarted')
    assert.strictEqual((await get(port)).version, want, String(version))
    c.do('stop')
    await c.hears('stopped')
  }
  fs.unlinkSync(path.join(dir, '.rack.json'))
  const none = caller(t, folder(t, {}), head(dir, true))
  assert.match((await none.hears('error')).message, /Unable to read version from \.rack\.json/)
})

test('what is wrong at the start is an error event that says what (before: uncaught)', async (t) => {
  const none = caller(t, folder(t, {}), head(folder(t, { 'x.js': '' })))
  assert.match((await none.hears('error')).message, /no .*\.rack\.json/)
  const bad = caller(t, folder(t, {}), head(folder(t, { '.rackman.json': '{ "server": "app.js", }' })))
  assert.match((await bad.hears('error')).message, /\.rackman\.json:1:\d+/)
})
