'use strict'
// What callers and workers do to each other: slow ones, busy ones, those that end.
const test = require('node:test')
const assert = require('assert')
const { execFileSync } = require('child_process')
const fs = require('fs')
const path = require('path')
const { root, beside, folder, freePort, server, caller, get, masterOf } = require('./helper')
const { findBinary } = require('../lib/binary')

// begin runs a caller with a Master m of app.js, and what it does with it.
async function begin (t, options, app, more = '', env = {}, files = {}) {
  const port = await freePort()
  const dir = folder(t, { 'app.js': app, ...files })
  const c = caller(t, dir, `
const cluster = require('cluster')
const { Master } = require(${JSON.stringify(path.join(root, 'lib/master'))})
const dir = __dirname
const m = new Master({ exec: require('path').join(dir, 'app.js'), workers: 1, ...${options} })
for (const name of ['fork', 'online', 'listening', 'ready', 'disconnect']) m.on(name, (w) => say({ name, id: w.id, pid: w.process.pid, slot: w.slot }))
m.on('exit', (w, code, signal) => say({ name: 'exit', id: w.id, pid: w.process.pid, code, signal }))
m.on('live', (generation) => say({ name: 'live', generation }))
m.on('end', (code, err) => say({ name: 'end', code, err: err && err.message }))
process.on('warning', (w) => say({ name: 'warning', code: w.code, message: w.message }))
on('reload', () => m.reload().then((generation) => say({ name: 'reloaded', generation, workers: [...m.workers.values()].map((w) => w.process.pid) }), (err) => say({ name: 'reloaded', err: err.message, code: err.code })))
on('state', () => say({ name: 'state', workers: [...m.workers.values()].map((w) => [w.process.pid, w.ready]), cluster: Object.keys(cluster.workers || {}).length }))
on('stop', () => m.stop().then(() => say({ name: 'stopped' })))
const first = () => m.workers.values().next().value
const block = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
${more}
m.start()
`, { PORT: String(port), ...env })
  return { port, dir, c, write: (text) => fs.writeFileSync(path.join(dir, 'app.js'), text) }
}

test('a reload that is overtaken calls back, also when the one after fails', async (t) => {
  const port = await freePort()
  const dir = folder(t, { 'app.js': server('one') })
  const write = (text) => fs.writeFileSync(path.join(dir, 'app.js'), text)
  const c = caller(t, dir, `
const b = require(${JSON.stringify(path.join(root, 'recluster.js'))})(require('path').join(__dirname, 'app.js'), { workers: 1, respawn: 0.05, timeout: 5, log: {} })
b.on('ready', (w) => say({ name: 'ready' }))
b.on('message', (w, message) => say({ name: 'message', message }))
on('reload', (n) => b.reload((err) => say({ name: 'reloaded', n, err: err && err.message })))
b.run()`, { PORT: String(port) })
  await c.hears('ready')
  write('process.send("loads"); setTimeout(() => {' + server('slow') + '}, 20000)')
  c.do('reload', 2)
  await c.hears('message')
  write('throw new Error("no database")')
  c.do('reload', 3)
  const came = [await c.hears('reloaded'), await c.hears('reloaded')]
  assert.deepStrictEqual(came.map((r) => r.n).sort(), [2, 3])
  for (const r of came) assert.match(r.err, /the previous workers continue.*no database/s)
  assert.strictEqual((await get(port)).version, 'one')
  // Overtaken by one that works: both have what they wanted.
  write('process.send("loads"); setTimeout(() => {' + server('slow') + '}, 20000)')
  c.do('reload', 4)
  await c.hears('message')
  write(server('five'))
  c.do('reload', 5)
  for (let i = 0; i < 2; i++) assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(port)).version, 'five')
})

test('a reload that is refused calls back; the next one has its number, and is not taken for it', async (t) => {
  const { c, dir } = await begin(t, '{ settings: { hook: "before_reload=test -e " + dir + "/allowed" } }', server('one'))
  await c.hears('live')
  for (let i = 0; i < 2; i++) {
    c.do('reload')
    assert.strictEqual((await c.hears('reloaded')).code, 'HANDOFF_ERR_RELOAD_FAILED')
  }
  fs.writeFileSync(path.join(dir, 'allowed'), '')
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).generation, 2)
  fs.unlinkSync(path.join(dir, 'allowed'))
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).code, 'HANDOFF_ERR_RELOAD_FAILED')
})

const FLOOD = server('one', `
process.on('message', (m) => { if (m.flood) for (let i = 0; i < m.flood; i++) process.send({ i, pad: 'x'.repeat(200) }) })`)

beside(() => {
  test('a caller that is busy for 2 s: 20 000 messages arrive, in order, and a reload calls back', async (t) => {
    const { c } = await begin(t, '{}', FLOOD, `
  let next = 0
  let wrong = 0
  m.on('message', (w, message) => {
    if (message.i !== next++) wrong++
    if (message.i === 10) block(2000)
    if (next === 20000) say({ name: 'all', wrong })
  })
  on('flood', () => first().send({ flood: 20000 }))`)
    await c.hears('live')
    c.do('flood')
    assert.strictEqual((await c.hears('all')).wrong, 0)
    c.do('reload')
    assert.strictEqual((await c.hears('reloaded')).err, undefined)
    assert.ok(!c.said.some((m) => m.name === 'warning'))
  })

  test('a worker that is busy for 3 s gets 5 000 messages, in order; one that is too large is an error', async (t) => {
    const { c } = await begin(t, '{}', server('one', `
  let next = 0
  let wrong = 0
  process.on('message', (m) => {
    if (m === 'block') return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000)
    if (m.i !== next++) wrong++
    if (next === 5000) process.send({ got: next, wrong })
  })`), `
  m.on('message', (w, message) => say({ name: 'message', message }))
  on('send', () => {
    const w = first()
    w.send('block')
    let more = true
    for (let i = 0; i < 5000; i++) more = w.send({ i, pad: 'x'.repeat(1000) })
    say({ name: 'sent', more })
  })
  on('large', () => {
    first().send('x'.repeat(2 << 20), (err) => {
      say({ name: 'large', code: err && err.code })
      first().send('x'.repeat(2 << 20))
      first().on('error', (err) => say({ name: 'error', code: err.code }))
      first().send('x'.repeat(2 << 20))
    })
  })`)
    await c.hears('live')
    c.do('send')
    assert.strictEqual((await c.hears('sent')).more, false)
    assert.deepStrictEqual((await c.hears('message')).message, { got: 5000, wrong: 0 })
    c.do('large')
    assert.strictEqual((await c.hears('large')).code, 'HANDOFF_ERR_MESSAGE_TOO_LARGE')
    assert.strictEqual((await c.hears('error')).code, 'HANDOFF_ERR_MESSAGE_TOO_LARGE')
  })

  test('the first generation has no ready timeout, a reload has', async (t) => {
    const { c, write } = await begin(t, '{ settings: { readyTimeout: "500ms" } }', 'setTimeout(() => {' + server('one') + '}, 1500)')
    const { pid } = await c.hears('fork')
    assert.strictEqual((await c.hears('ready')).pid, pid)
    write('setInterval(() => {}, 1000)')
    c.do('reload')
    assert.match((await c.hears('reloaded')).err, /not ready within 500ms/)
  })
})

test('messages of a worker that ends at once come before its exit', async (t) => {
  const { c } = await begin(t, '{}', server('one', `
process.on('message', () => { for (let i = 0; i < 2000; i++) process.send({ i, pad: 'x'.repeat(200) }, i === 1999 ? () => process.exit(3) : undefined) })`), `
let n = 0
m.on('message', () => { if (n++ === 10) block(1000) })
m.on('exit', (w, code) => say({ name: 'count', n, code }))
on('flood', () => first().send('go'))`)
  await c.hears('live')
  c.do('flood')
  assert.deepStrictEqual(await c.hears('count'), { name: 'count', n: 2000, code: 3 })
})

test('a caller that was stopped while its worker and its master were killed knows what there is', async (t) => {
  const { c, port } = await begin(t, '{ settings: { respawn: "100ms" } }', FLOOD, `
let n = 0
m.on('message', () => { if (n++ === 10) { say({ name: 'flooded' }); process.kill(process.pid, 'SIGSTOP') } })
on('flood', () => first().send({ flood: 20000 }))`)
  const { pid } = await c.hears('ready')
  c.do('flood')
  await c.hears('flooded')
  for (let line = ''; !/\) T/.test(line);) line = fs.readFileSync(`/proc/${c.pid}/stat`, 'utf8')
  const { master } = masterOf(c.pid)
  process.kill(pid, 'SIGKILL')
  let now = { pid }
  while (now.pid === pid) now = await get(port).catch(() => ({ pid }))
  for (let i = 0; i < 200; i++) await get(port) // it counts as ready some milliseconds later
  process.kill(master, 'SIGKILL')
  while ([undefined, master].includes(masterOf(c.pid).master)) await new Promise((resolve) => setTimeout(resolve, 10))
  process.kill(c.pid, 'SIGCONT')
  assert.strictEqual((await c.until('exit', () => c.said.find((m) => m.name === 'exit'))).pid, pid)
  await c.until('ready', () => c.said.some((m) => m.name === 'ready' && m.pid === now.pid))
  c.do('state')
  assert.deepStrictEqual(await c.hears('state'), { name: 'state', workers: [[now.pid, true]], cluster: 1 })
  c.do('reload')
  const done = await c.hears('reloaded')
  assert.strictEqual(done.err, undefined)
  assert.ok(!done.workers.includes(now.pid) && done.workers.length === 1)
})

test('more than 64 MiB for a worker that does not read are refused', async (t) => {
  const { c } = await begin(t, '{}', server('one', 'process.on("message", () => { for (;;); })'), `
on('send', () => {
  const w = first()
  w.send('spin')
  const pad = 'x'.repeat(1 << 19)
  let n = 0
  const send = () => w.send(pad, (err) => { if (err && !n) { n = 1; say({ name: 'refused', code: err.code }); w.kill('SIGKILL') } })
  for (let i = 0; i < 140; i++) send()
})`)
  await c.hears('live')
  c.do('send')
  assert.strictEqual((await c.hears('refused')).code, 'HANDOFF_ERR_WORKER_BUSY')
  await c.hears('exit')
})

test('messages to all of cluster.workers, all the time, through reloads', async (t) => {
  const { c } = await begin(t, '{ workers: 2, settings: { keepaliveLinger: "50ms" } }', server('one', 'process.on("disconnect", () => setTimeout(() => process.exit(), 500))'), `
setInterval(() => { for (const id in cluster.workers) cluster.workers[id].send({ all: 1 }) }, 1)
m.on('disconnect', (w) => { if (cluster.workers[w.id]) say({ name: 'kept' }) })`)
  await c.hears('live')
  for (let i = 0; i < 3; i++) {
    c.do('reload')
    assert.strictEqual((await c.hears('reloaded')).err, undefined)
  }
  c.do('stop')
  await c.hears('stopped')
  assert.ok(!c.said.some((m) => m.name === 'kept' || m.name === 'warning'), JSON.stringify(c.said.filter((m) => m.name === 'warning')))
})

test('kill(0), unknown signals, handles', async (t) => {
  const { c } = await begin(t, '{ settings: { respawn: "100ms" } }', server('one'), `
const code = (f) => { try { return f() } catch (err) { return err.code } }
on('ask', () => {
  const w = first()
  const socket = new (require('net').Socket)()
  w.once('exit', () => say({ name: 'dead', dead: [w.kill(0), w.process.kill(0), w.kill()] }))
  w.send('x', socket, (err) => {
    say({
      name: 'asked',
      alive: [w.kill(0), w.process.kill(0)],
      unknown: [code(() => w.kill(4711)), code(() => w.kill('SIGNONE')), code(() => w.process.kill(-1))],
      handle: [err.code, code(() => w.send('x', socket)), w.send('x', null, () => {}), w.send('x', undefined, {}, () => {})],
      dead: w.isDead()
    })
    w.kill(9)
  })
})`)
  await c.hears('live')
  c.do('ask')
  const unsupported = 'HANDOFF_ERR_HANDLE_NOT_SUPPORTED'
  assert.deepStrictEqual(await c.hears('asked'), {
    name: 'asked', alive: [true, true], unknown: Array(3).fill('ERR_UNKNOWN_SIGNAL'), handle: [unsupported, unsupported, true, true], dead: false
  })
  assert.deepStrictEqual((await c.until('dead', () => c.said.find((m) => m.name === 'dead'))).dead, [false, false, false])
})

test('neither a handoff.toml where the caller is nor variables of flags are meant for it', async (t) => {
  const env = { HANDOFF_OWN: 'kept' }
  const help = execFileSync(findBinary(), ['run', '--help'], { encoding: 'utf8' })
  for (const [, flag] of help.matchAll(/^ +(?:-\w, )?--([a-z0-9-]+)/gm)) if (flag !== 'help') env['HANDOFF_' + flag.toUpperCase().replace(/-/g, '_')] = 'no such thing'
  assert.ok(Object.keys(env).length > 50, Object.keys(env).join(' '))
  const { c, port } = await begin(t, '{}', server('one', 'process.send(Object.keys(process.env).filter((n) => n.startsWith("HANDOFF_")))'), `
m.on('message', (w, message) => say({ name: 'message', message }))`, env, { 'handoff.toml': 'command = "other.js"\nready_when = "nonsense"\n' })
  const { message } = await c.hears('message')
  await c.hears('live')
  assert.strictEqual((await get(port)).version, 'one')
  assert.ok(message.includes('HANDOFF_OWN') && !message.includes('HANDOFF_WORKERS'), message.join(' '))
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).generation, 2)
})

test('nothing is left in the temporary folder, whoever exits how', async (t) => {
  const tmp = folder(t, {})
  for (const more of ['m.on("end", () => process.exit())', 'on("stop", () => process.exit())']) {
    const { c } = await begin(t, '{}', server('one'), more, { TMPDIR: tmp })
    await c.hears('live')
    assert.strictEqual(fs.readdirSync(tmp).length, 1)
    c.do('stop')
    await c.exited
    assert.deepStrictEqual(fs.readdirSync(tmp), [])
  }
})

test('a message of a worker that is too large: the caller is warned', async (t) => {
  const { c } = await begin(t, '{}', server('one', 'process.send("x".repeat(2 << 20))'))
  const { pid } = await c.hears('fork')
  const warning = await c.hears('warning')
  assert.strictEqual(warning.code, 'HANDOFF_MESSAGE_DROPPED')
  assert.match(warning.message, new RegExp(`worker 1 .*pid ${pid}.*longer than 1 MiB`))
})
