'use strict'
// sticky-listen's interface (§ 2b), over recluster's.
const test = require('node:test')
const assert = require('assert')
const http = require('http')
const path = require('path')
const fs = require('fs')
const { root, folder, freePort, caller } = require('./helper')

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
  assert.throws(() => createBalancer({ activeWorkers: () => {}, behindProxy: true }), /in the kernel: behindProxy and cipHeader cannot be had/)
})

test('a client stays with its slot, also over reloads and a death of its worker', async (t) => {
  const port = await freePort()
  const dir = folder(t, { 'app.js': WORKER })
  const c = caller(t, dir, `
    const b = require(${JSON.stringify(path.join(root, 'recluster.js'))})(__dirname + '/app.js', { workers: 3, timeout: 2, log: {}, respawn: 0.1 })
    b.run()
    const balancer = require(${JSON.stringify(path.join(root, 'sticky-listen.js'))}).createBalancer({ activeWorkers: b.activeWorkers })
    balancer.listen(${port}, () => say({ name: 'listening', address: balancer.address() }))
    on('reload', () => b.reload((err) => say({ name: 'reloaded', err: err && err.message })))
  `)
  assert.strictEqual((await c.hears('listening')).address.port, port)
  const all = Array.from({ length: 30 }, (_, i) => '127.0.0.' + (i + 2))
  const slots = {}
  for (const from of all) slots[from] = (await fetch(port, from)).split(':')[0]
  assert.deepStrictEqual([...new Set(Object.values(slots))].sort(), ['0', '1', '2'])
  for (const from of all) assert.strictEqual((await fetch(port, from)).split(':')[0], slots[from], from)
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  for (const from of all) assert.strictEqual((await fetch(port, from)).split(':')[0], slots[from], from + ' after a reload')
  // A worker that is gone: its clients are answered by another, none hangs.
  const [, pid] = (await fetch(port, all[0])).split(':')
  process.kill(Number(pid), 'SIGKILL')
  for (const from of all) assert.match(await fetch(port, from), /^\d:\d+$/)
  assert.ok(fs.existsSync(dir))
})
