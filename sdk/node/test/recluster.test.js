'use strict'
// recluster's interface, row by row of the seeds (§ 2), and its measured failures fixed.
const test = require('node:test')
const assert = require('assert')
const fs = require('fs')
const os = require('os')
const path = require('path')
const { root, reloads, beside, folder, freePort, server, caller, get, hold, load, sleep, gone, masterOf } = require('./helper')

const MODULE = process.env.HANDOFF_TEST_MODULE || path.join(root, 'recluster.js')
const head = (options) => `
const recluster = require(${JSON.stringify(MODULE)})
const b = recluster(require('path').join(__dirname, 'app.js'), ${options})
for (const name of ['online', 'listening', 'ready', 'disconnect', 'message', 'exit']) {
  b.on(name, (w, a, c) => say({ name, id: w.id, wid: w._rc_wid, pid: w.process.pid, a, c, active: Object.keys(b.activeWorkers()).filter((k) => k !== 'length' && b.activeWorkers()[k]), workers: b.workers().length, cluster: Object.keys(require('cluster').workers || {}) }))
}
on('reload', () => b.reload((err) => say({ name: 'reloaded', err: err && err.message, workers: b.workers().map((w) => w.id), cluster: Object.keys(require('cluster').workers) })))
on('terminate', () => b.terminate(() => say({ name: 'terminated', cluster: Object.keys(require('cluster').workers), workers: b.workers().length })))
on('stop', (signal) => {
  const pids = b.workers().map((w) => w.process.pid)
  b.stop()
  if (signal) for (const pid of pids) process.kill(pid, signal)
  say({ name: 'stopped' })
})
on('state', () => say({ name: 'state', workers: b.workers().length, active: Object.values(b.activeWorkers()).filter((w) => w && w.id).length, length: b.activeWorkers().length }))
on('send', (m) => b.workers()[0].send(m))
on('kill', (s) => b.workers()[0].kill(s))
b.on('exit', (w) => say({ name: 'replaced', pid: w.process.pid, replaced: w._rc_isReplaced }))
process.on('SIGUSR2', () => b.reload((err) => say({ name: 'reloaded', err: err && err.message })))
b.run()
`
const IDLY = { clients: 1, keepAlive: 1, pauseMs: 50 } // a load beside others

async function begin (t, options, app = server('one'), env = {}, prepare = () => {}) {
  const port = await freePort()
  const dir = folder(t, { 'app.js': app })
  prepare(dir)
  const c = caller(t, dir, head(options), { PORT: String(port), ...env })
  return { port, dir, c }
}

const ready = async (c, n) => { const all = []; while (all.length < n) all.push(await c.hears('ready')); return all }

test('events, slots, arguments, environment', async (t) => {
  const { port, c } = await begin(t, '{ workers: 2, args: ["a", "b"], execArgv: ["--no-warnings"], log: {} }', server('one'), { COLOUR: 'red' })
  const online = await c.hears('online')
  assert.ok(online.id > 0 && online.pid > 0)
  const [first, second] = await ready(c, 2)
  assert.deepStrictEqual([first.wid, second.wid].sort(), [0, 1])
  assert.strictEqual(first.a.port, port)
  assert.deepStrictEqual(second.active.sort(), ['0', '1'])
  assert.deepStrictEqual(second.cluster.length, 2)
  const answer = await get(port)
  assert.deepStrictEqual(answer.argv, ['a', 'b'])
  assert.ok(answer.execArgv.includes('--no-warnings'))
  assert.strictEqual(answer.env, 'red')
  assert.ok(c.said.some((m) => m.name === 'listening' && m.a.port === port))
  c.do('state')
  assert.deepStrictEqual(await c.hears('state'), { name: 'state', workers: 2, active: 2, length: 2 })
})

test('readyWhen started', async (t) => {
  const { c } = await begin(t, '{ workers: 1, readyWhen: "started" }', 'setInterval(() => {}, 1000)')
  await ready(c, 1)
  assert.ok(!c.said.some((m) => m.name === 'listening'))
})

test('readyWhen ready, with the message as the argument', async (t) => {
  const { c, port } = await begin(t, '{ workers: 1, readyWhen: "ready" }', server('one', 'process.on("message", (m) => { if (m === "warm up") process.send({ cmd: "ready", warm: 7 }) })'))
  const listening = c.hears('listening')
  await listening
  assert.ok(!c.said.some((m) => m.name === 'ready'))
  c.do('send', 'warm up')
  const [r] = await ready(c, 1)
  assert.strictEqual(r.a.warm, 7)
  assert.strictEqual((await get(port)).version, 'one')
})

reloads('reload: nothing is lost, the callback means new ready and old gone', async (t) => {
  const { port, dir, c } = await begin(t, '{ workers: 2, timeout: 5 }')
  await ready(c, 2)
  const l = load(t, port)
  await l.atLeast(50)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('reload')
  const done = await c.hears('reloaded')
  assert.strictEqual(done.err, undefined)
  assert.deepStrictEqual(done.workers.length, 2)
  assert.deepStrictEqual(done.workers.map(String).sort(), done.cluster.sort())
  assert.strictEqual((await get(port)).version, 'two')
  await l.atLeast(50)
  await l.nothingLost()
})

reloads('reload by the user\'s own USR2 handler', async (t) => {
  const { port, dir, c } = await begin(t, '{ workers: 2, timeout: 5 }')
  await ready(c, 2)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  process.kill(c.pid, 'SIGUSR2')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
})

reloads('overlapping reloads: nothing is refused (recluster: 67 of 625)', async (t) => {
  const { port, dir, c } = await begin(t, '{ workers: 2, timeout: 5 }')
  await ready(c, 2)
  const l = load(t, port)
  await l.atLeast(30)
  for (const version of ['two', 'three', 'four']) {
    // In one step: workers of the reload before still read it.
    fs.writeFileSync(path.join(dir, 'next.js'), server(version))
    fs.renameSync(path.join(dir, 'next.js'), path.join(dir, 'app.js'))
    c.do('reload')
    await l.atLeast(5)
  }
  for (let i = 0; i < 3; i++) assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(port)).version, 'four')
  await l.nothingLost()
})

reloads('reload onto broken code: an error, the previous workers continue, the next one works', async (t) => {
  const { port, dir, c } = await begin(t, '{ workers: 2, timeout: 5, respawn: 0.05 }')
  await ready(c, 2)
  const l = load(t, port)
  fs.writeFileSync(path.join(dir, 'app.js'), 'throw new Error("no database")')
  c.do('reload')
  const failed = await c.hears('reloaded')
  assert.match(failed.err, /the previous workers continue/)
  assert.match(failed.err, /no database/)
  assert.strictEqual((await get(port)).version, 'one')
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
})

reloads('a request that takes long is finished in a reload, within the timeout', async (t) => {
  const { port, dir, c } = await begin(t, '{ workers: 2, timeout: 10 }')
  await ready(c, 2)
  const slow = await hold(port)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('reload')
  await ready(c, 2)
  assert.ok(!c.said.some((m) => m.name === 'reloaded'), 'it waits for the request')
  assert.strictEqual((await slow.release()).version, 'one')
  await c.hears('reloaded')
  assert.strictEqual((await get(port)).version, 'two')
})

beside(() => {
  reloads('a reload without a timeout given finishes what takes 1.5 s (recluster: ECONNRESET)', async (t) => {
    const { port, dir, c } = await begin(t, '{ workers: 2 }')
    const before = (await ready(c, 2)).map((r) => r.pid)
    const slow = await hold(port)
    fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
    c.do('reload')
    await ready(c, 2)
    await sleep(1500) // longer than recluster's second
    const { version, pid } = await slow.release()
    assert.strictEqual((await c.hears('reloaded')).err, undefined)
    assert.strictEqual(version, 'one')
    assert.ok(before.includes(pid))
    assert.strictEqual((await get(port)).version, 'two')
  })

  reloads('a reload onto code that is never ready: an error, the previous workers continue, the next one works', async (t) => {
    const { port, dir, c } = await begin(t, '{ workers: 2, readyTimeout: 5 }')
    await ready(c, 2)
    const l = load(t, port, IDLY)
    fs.writeFileSync(path.join(dir, 'app.js'), 'setInterval(() => {}, 1e3)')
    c.do('reload')
    assert.match((await c.hears('reloaded')).err, /the previous workers continue: not ready within 5s/)
    assert.strictEqual((await get(port)).version, 'one')
    fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
    c.do('reload')
    assert.strictEqual((await c.hears('reloaded')).err, undefined)
    assert.strictEqual((await get(port)).version, 'two')
    await l.nothingLost()
  })

  test('backoff: the waits grow, and the cap holds (recluster: 2, 4, 8 s and more, 10 s between each, with a cap of 10)', async (t) => {
    const { c } = await begin(t, '{ workers: 4, respawn: 0.1, backoff: 0.4 }', 'process.exit(3)')
    for (let i = 0; i < 20; i++) await c.hears('exit')
    await c.until('20 lines', () => (c.out.match(/respawning in \d+/g) || []).length >= 20)
    const waits = c.out.match(/respawning in \d+/g).map((s) => Number(s.split(' ')[2]))
    assert.ok(Math.max(...waits) <= 400, waits.join())
    assert.ok(waits.includes(200) && waits.includes(400), waits.join())
  })

  test('a first start that fails is retried for ever, and works when the file is repaired', async (t) => {
    const { c, dir, port } = await begin(t, '{ workers: 1, respawn: 0.05, log: {} }', 'throw new Error("not yet")')
    for (let i = 0; i < 5; i++) await c.hears('exit')
    fs.writeFileSync(path.join(dir, 'app.js'), server('repaired'))
    await ready(c, 1)
    assert.strictEqual((await get(port)).version, 'repaired')
  })

  test('terminate calls back when every process has ended, each time', async (t) => {
    for (let i = 0; i < 3; i++) {
      const { c } = await begin(t, '{ workers: 2 }', server('one', 'process.on("SIGTERM", () => {})'))
      const pids = (await ready(c, 2)).map((r) => r.pid)
      c.do('terminate')
      assert.deepStrictEqual(await c.hears('terminated'), { name: 'terminated', cluster: [], workers: 0 })
      await gone(pids)
    }
  })
})

reloads('retired workers: disconnect before exit, _rc_isReplaced', async (t) => {
  const { c } = await begin(t, '{ workers: 2 }')
  const old = (await ready(c, 2)).map((r) => r.pid)
  c.do('reload')
  await c.hears('reloaded')
  for (const pid of old) {
    const of = c.said.filter((m) => m.pid === pid && ['disconnect', 'exit', 'replaced'].includes(m.name))
    assert.deepStrictEqual(of.map((m) => m.name), ['disconnect', 'exit', 'replaced'])
    assert.strictEqual(of[2].replaced, true)
  }
  assert.ok(!/must be replaced/.test(c.out))
})

reloads('a symlink as the file is followed at a reload', async (t) => {
  const point = (dir, to) => {
    fs.symlinkSync(to, path.join(dir, 'new'))
    fs.renameSync(path.join(dir, 'new'), path.join(dir, 'app.js'))
  }
  const { port, dir, c } = await begin(t, '{ workers: 1 }', server('one'), {}, (dir) => {
    fs.renameSync(path.join(dir, 'app.js'), path.join(dir, 'one.js'))
    fs.writeFileSync(path.join(dir, 'two.js'), server('two'))
    point(dir, 'one.js')
  })
  await ready(c, 1)
  assert.strictEqual((await get(port)).version, 'one')
  point(dir, 'two.js')
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
})

test('workers: one for each CPU by default', async (t) => {
  const { c } = await begin(t, '{}')
  await ready(c, os.cpus().length)
  c.do('state')
  assert.deepStrictEqual(await c.hears('state'), { name: 'state', workers: os.cpus().length, active: os.cpus().length, length: os.cpus().length })
})

test('a logger of one\'s own; log: {} is silent', async (t) => {
  const own = await begin(t, '{ workers: 1, respawn: 0.1, logger: { log: (...args) => say({ name: "logged", args }) } }')
  await ready(own.c, 1)
  own.c.do('kill', 'SIGKILL')
  const { args } = await own.c.hears('logged')
  assert.match(args[0], /must be replaced, respawning in$/)
  assert.strictEqual(typeof args[1], 'number')
  assert.ok(!/must be replaced/.test(own.c.out))
  const none = await begin(t, '{ workers: 1, respawn: 0.1, log: {} }')
  await ready(none.c, 1)
  none.c.do('kill', 'SIGKILL')
  await ready(none.c, 1)
  assert.ok(!/must be replaced/.test(none.c.out))
})

test('a file that is not there at the first start is retried like a crash', async (t) => {
  const { c, dir, port } = await begin(t, '{ workers: 1, respawn: 0.05, log: {} }', '', {}, (dir) => fs.unlinkSync(path.join(dir, 'app.js')))
  for (let i = 0; i < 4; i++) await c.hears('exit') // more than a reload would be given
  fs.writeFileSync(path.join(dir, 'app.js'), server('repaired'))
  await c.hears('ready')
  await get(port)
})

test('a crash: exit with code and signal, the log line, one replacement', async (t) => {
  const { c } = await begin(t, '{ workers: 2, respawn: 0.1 }')
  await ready(c, 2)
  c.do('kill', 'SIGKILL')
  const exit = await c.hears('exit')
  assert.strictEqual(exit.c, 'SIGKILL')
  assert.ok(!exit.active.includes(String(exit.wid)))
  const [again] = await ready(c, 1)
  assert.strictEqual(again.wid, exit.wid)
  assert.strictEqual(again.workers, 2)
  await c.until('log line', () => new RegExp(`\\[${exit.pid}\\] worker \\(${exit.wid}:${exit.id}\\) must be replaced, respawning in \\d+`).test(c.out))
})

test('an exit with a code of its own', async (t) => {
  const { c } = await begin(t, '{ workers: 1, respawn: 0.1, log: {} }', server('one', 'process.on("message", () => process.exit(7))'))
  await ready(c, 1)
  c.do('send', 'go')
  assert.strictEqual((await c.hears('exit')).a, 7)
})

test('{cmd: disconnect}: its replacement serves before it ends; nothing is lost', async (t) => {
  const { c, port } = await begin(t, '{ workers: 2, timeout: 2, respawn: 0.01 }', server('one', 'process.on("message", (m) => { if (m === "leave") { process.send({ cmd: "disconnect" }); setInterval(() => {}, 1000) } })'))
  await ready(c, 2)
  const l = load(t, port)
  await l.atLeast(30)
  c.do('send', 'leave')
  const left = await c.until('message', () => c.said.find((m) => m.name === 'message' && m.a.cmd === 'disconnect'))
  const [again] = await ready(c, 1)
  assert.strictEqual(again.wid, left.wid)
  const exit = await c.hears('exit')
  assert.strictEqual(exit.id, left.id)
  await l.nothingLost()
})

test('messages pass both ways', async (t) => {
  const { c } = await begin(t, '{ workers: 1 }')
  await ready(c, 1)
  c.do('send', { echo: { deep: [1, 'ü', null] } })
  assert.deepStrictEqual((await c.hears('message')).a, { echoed: { deep: [1, 'ü', null] } })
})

test('stop: workers are not replaced any more, and there are no events', async (t) => {
  const { c } = await begin(t, '{ workers: 2, respawn: 0.01 }')
  const pids = (await ready(c, 2)).map((r) => r.pid)
  c.do('stop', 'SIGKILL') // at once: a replacement may be on its way before handoff hears of the stop
  await c.hears('stopped')
  await gone(pids)
  await c.until('0 workers', () => { c.do('state'); return c.said.some((m) => m.name === 'state' && m.workers === 0) })
  assert.ok(!c.said.some((m) => m.name === 'exit'))
})

reloads('a worker that ignores SIGTERM is killed', async (t) => {
  const { c } = await begin(t, '{ workers: 1, timeout: 0.2 }', server('one', 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000)'))
  const [old] = await ready(c, 1)
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  await gone([old.pid])
})

reloads('kill -9 of the master: nothing is lost, and a reload works after it', async (t) => {
  const { c, port, dir } = await begin(t, '{ workers: 2, timeout: 5 }')
  await ready(c, 2)
  const l = load(t, port)
  await l.atLeast(30)
  const { master } = masterOf(c.pid)
  process.kill(master, 'SIGKILL')
  await l.atLeast(30)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('reload')
  assert.strictEqual((await c.hears('reloaded')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
})

test('kill -9 of the caller ends every process', async (t) => {
  const { c } = await begin(t, '{ workers: 2 }')
  const pids = (await ready(c, 2)).map((r) => r.pid)
  const { keeper, master } = masterOf(c.pid)
  assert.ok(keeper && master)
  c.child.kill('SIGKILL')
  await gone([...pids, keeper, master])
})

test('kill -9 of the keeper: an error event or a log line, and every process ends', async (t) => {
  for (const listens of [true, false]) {
    const { c } = await begin(t, '{ workers: 2 }' + (listens ? '); b.on("error", (err) => say({ name: "error", message: err.message })' : ''))
    const pids = (await ready(c, 2)).map((r) => r.pid)
    const { keeper, master } = masterOf(c.pid)
    process.kill(keeper, 'SIGKILL')
    if (listens) assert.match((await c.hears('error')).message, /handoff was killed by SIGKILL/)
    else await c.until('the log', () => /recluster: the workers have ended and are not restarted: handoff was killed by SIGKILL/.test(c.out))
    await gone([...pids, keeper, master])
  }
})

test('handoff cannot start: a line of the log says so', async (t) => {
  const { c } = await begin(t, '{ workers: 1 }', server('one'), { HANDOFF_BIN: '/bin/false' })
  await c.until('the log', () => /recluster: the workers have ended and are not restarted: handoff ended with code 1/.test(c.out))
})
