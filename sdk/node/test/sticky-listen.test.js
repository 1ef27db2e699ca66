'use strict'
// sticky-listen's interface (§ 2b), over recluster's.
const test = require('node:test')
const assert = require('assert')
const http = require('http')
const path = require('path')
const fs = require('fs')
const { root, reloads, folder, freePort, caller, load, gone, masterOf } = require('./helper')

const WORKER = `
const { listen } = require(${JSON.stringify(path.join(root, 'sticky-listen.js'))})
const server = require('http').createServer((q, r) => r.end(process.env.WORKER_ID + ':' + process.pid))
listen(server)
`
const fetch = (port, from) => new Promise((resolve, reject) => {
  http.get({ host: '127.0.0.1', port, localAddress: from, agent: false }, (res) => { let b = ''; res.on('data', (d) => { b += d }); res.on('end', () => resolve(b)) }).on('error', reject)
})

test('createBalancer needs activeWorkers; a header cannot be the key', () => {
  const { createBalancer } = require('../sticky-listen')
  assert.throws(() => createBalancer(), { name: 'TypeError', message: 'Must provide activeWorkers option (returns a list of worker processes)' })
  assert.throws(() => createBalancer({}), TypeError)
  assert.throws(() => createBalancer({ activeWorkers: () => {}, behindProxy: true }), /in the kernel: behindProxy and cipHeader are not supported/)
})

const RECLUSTER = process.env.HANDOFF_TEST_MODULE || path.join(root, 'recluster.js')

reloads('a client stays with its slot, also over reloads, a kill -9 of the master, and a death of its worker', async (t) => {
  const port = await freePort()
  const dir = folder(t, { 'app.js': WORKER })
  const c = caller(t, dir, `
    const b = require(${JSON.stringify(RECLUSTER)})(__dirname + '/app.js', { workers: 3, timeout: 2, log: {}, respawn: 0.1 })
    b.run()
    const balancer = require(${JSON.stringify(path.join(root, 'sticky-listen.js'))}).createBalancer({ activeWorkers: b.activeWorkers })
    balancer.listen(${port}, () => say({ name: 'listening', address: balancer.address() }))
    on('state', () => say({ name: 'state' }))
    on('reload', () => b.reload((err) => say({ name: 'reloaded', err: err && err.message })))
  `)
  assert.strictEqual((await c.hears('listening')).address.port, port)
  const all = Array.from({ length: 30 }, (_, i) => '127.0.0.' + (i + 2))
  const slots = {}
  for (const from of all) slots[from] = (await fetch(port, from)).split(':')[0]
  assert.deepStrictEqual([...new Set(Object.values(slots))].sort(), ['0', '1', '2'])
  for (const from of all) assert.strictEqual((await fetch(port, from)).split(':')[0], slots[from], from)
  const before = new Set()
  for (const from of all) before.add((await fetch(port, from)).split(':')[1])
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  for (const from of all) {
    const [slot, pid] = (await fetch(port, from)).split(':')
    assert.strictEqual(slot, slots[from], from + ' after a reload')
    assert.ok(!before.has(pid))
  }
  const { master } = masterOf(c.pid)
  process.kill(master, 'SIGKILL')
  await gone([master])
  for (const from of all) assert.strictEqual((await fetch(port, from)).split(':')[0], slots[from], from + ' without a master')
  await c.until('the next master', () => { const next = masterOf(c.pid).master; c.do('state'); return next && next !== master })
  for (const from of all) assert.strictEqual((await fetch(port, from)).split(':')[0], slots[from], from + ' with the next master')
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  for (const from of all) assert.strictEqual((await fetch(port, from)).split(':')[0], slots[from], from + ' after a reload of the next master')
  // A worker that is gone: its clients are answered by another, none hangs.
  const [, pid] = (await fetch(port, all[0])).split(':')
  process.kill(Number(pid), 'SIGKILL')
  for (const from of all) assert.match(await fetch(port, from), /^\d:\d+$/)
  assert.ok(fs.existsSync(dir))
})

test('createBalancer may come before run, and activeWorkers may be a function of one\'s own; others\' are an error', async (t) => {
  const port = await freePort()
  const dir = folder(t, { 'app.js': WORKER })
  const c = caller(t, dir, `
    const { createBalancer } = require(${JSON.stringify(path.join(root, 'sticky-listen.js'))})
    const b = require(${JSON.stringify(RECLUSTER)})(__dirname + '/app.js', { workers: 2, log: {} })
    const balancer = createBalancer({ activeWorkers: () => b.activeWorkers() })
    balancer.listen(${port}, () => say({ name: 'listening', address: balancer.address() }))
    try { createBalancer({ activeWorkers: () => ({ length: 1 }) }).listen(1) } catch (err) { say({ name: 'threw', code: err.code, message: err.message }) }
    b.run()
  `)
  const threw = await c.hears('threw')
  assert.strictEqual(threw.code, 'HANDOFF_ERR_NOT_RECLUSTER')
  assert.match(threw.message, /@handoff\/node\/recluster/)
  await c.hears('listening')
  const [slot] = (await fetch(port, '127.0.0.9')).split(':')
  for (let i = 0; i < 5; i++) assert.strictEqual((await fetch(port, '127.0.0.9')).split(':')[0], slot)
})

reloads('a worker that says ready before it listens, as the README has it: nothing is lost in a reload', async (t) => {
  const port = await freePort()
  const dir = folder(t, { 'app.js': WORKER + 'process.send({ cmd: "ready" })\n' })
  const c = caller(t, dir, `
    const b = require(${JSON.stringify(RECLUSTER)})(__dirname + '/app.js', { workers: 2, readyWhen: 'ready', log: {} })
    b.run()
    require(${JSON.stringify(path.join(root, 'sticky-listen.js'))}).createBalancer({ activeWorkers: b.activeWorkers }).listen(${port}, () => say({ name: 'listening' }))
    on('reload', () => b.reload((err) => say({ name: 'reloaded', err: err && err.message, pids: b.workers().map((w) => w.process.pid) })))
  `)
  await c.hears('listening')
  const l = load(t, port)
  await l.atLeast(30)
  const before = (await fetch(port, '127.0.0.1')).split(':')[1]
  for (let i = 0; i < 5; i++) {
    c.do('reload')
    const done = await c.hears('reloaded')
    assert.strictEqual(done.err, undefined)
    assert.ok(!done.pids.includes(Number(before)))
    await l.atLeast(30)
  }
  await l.nothingLost()
})
