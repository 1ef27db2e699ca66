'use strict'
// cluster-master's interface, row by row of the seeds (§ 4), and its measured failures
// fixed.
const test = require('node:test')
const assert = require('assert')
const fs = require('fs')
const net = require('net')
const path = require('path')
const { root, reloads, beside, folder, freePort, server, caller, get, hold, load, sleep, gone, children, masterOf } = require('./helper')

const MODULE = process.env.HANDOFF_TEST_MODULE || path.join(root, 'cluster-master.js')
const head = (config) => `
const cm = require(${JSON.stringify(MODULE)})
on('restart', () => cm.restart((err) => say({ name: 'restarted', err: err && err.message })))
on('resize', (n) => cm.resize(n, (err) => say({ name: 'resized', n, err: err && err.message, workers: Object.keys(require('cluster').workers).length })))
on('quit', () => cm.quit())
on('exit', (code) => process.exit(code))
// How many serve, at each moment at which that changes.
const serving = () => Object.values(require('cluster').workers || {}).filter((w) => w.ready && w.state === 'listening').length
let least = Infinity
on('watch', () => {
  for (const w of Object.values(require('cluster').workers)) for (const name of ['exit', 'disconnect']) w.on(name, () => { least = Math.min(least, serving()) })
  setInterval(() => { least = Math.min(least, serving()) }, 1)
})
on('restartAtExit', () => {
  for (const w of Object.values(require('cluster').workers)) w.on('exit', () => cm.restart((err) => say({ name: 'restarted', err: err && err.message })))
  say({ name: 'restarts at an exit' })
})
on('read', () => {
  for (const w of Object.values(require('cluster').workers)) {
    let text = ''
    w.process.stdout.resume()
    w.process.stderr.on('data', (d) => { text += d }).on('end', () => say({ name: 'ended', text }))
  }
  say({ name: 'reading' })
})
on('least', () => say({ name: 'least', least }))
on('quitHard', () => cm.quitHard())
cm(${config})
const look = setInterval(() => {
  const ws = Object.values(require('cluster').workers || {})
  if (ws.length === SIZE && ws.every((w) => w.ready)) { clearInterval(look); say({ name: 'up', pids: ws.map((w) => w.process.pid) }) }
}, 10)
`
async function begin (t, config = '{}', app = server('one'), env = {}, size = 2) {
  const port = await freePort()
  const dir = folder(t, { 'app.js': app })
  const c = caller(t, dir, head(`Object.assign({ exec: require('path').join(__dirname, 'app.js'), size: ${size}, minRestartAge: 300, repl: null }, ${config})`).replace('SIZE', size), { PORT: String(port), ...env })
  const up = await c.hears('up')
  return { port, dir, c, pids: up.pids }
}

test('exec is needed, one cluster, not in a worker', async (t) => {
  const dir = folder(t, { 'app.js': server('one') })
  const c = caller(t, dir, `const cm = require(${JSON.stringify(MODULE)})
    try { cm({}) } catch (err) { say({ name: 'threw', message: err.message }) }
    cm({ exec: __dirname + '/app.js', size: 1, repl: null })
    try { cm({ exec: __dirname + '/app.js' }) } catch (err) { say({ name: 'threw', message: err.message }) }
    process.env.NODE_UNIQUE_ID = '1'`, { PORT: String(await freePort()) })
  assert.strictEqual((await c.hears('threw')).message, "Must define a 'exec' script")
  assert.strictEqual((await c.hears('threw')).message, 'This cluster has a master already')
  const w = folder(t, {})
  const inside = caller(t, w, `try { require(${JSON.stringify(MODULE)})('x.js') } catch (err) { say({ name: 'threw', message: err.message }) }`, { HANDOFF_GENERATION: '1' })
  assert.strictEqual((await inside.hears('threw')).message, "ClusterMaster answers to no one!\n(don't run in a cluster worker script)")
})

for (const key of ['args', 'argv']) {
  test(`${key} and env reach the workers`, async (t) => {
    const { port } = await begin(t, `{ ${key}: ['x', 'y'], env: { COLOUR: 'blue' } }`)
    const answer = await get(port)
    assert.deepStrictEqual(answer.argv, ['x', 'y'])
    assert.strictEqual(answer.env, 'blue')
  })
}

test('onMessage has the worker as this', async (t) => {
  const { c, pids } = await begin(t, "{ onMessage: function (m) { say({ name: 'message', m, id: this.id, pid: this.process.pid }) } }", server('one', 'process.send({ hello: 1 })'))
  const m = await c.until('message', () => c.said.find((m) => m.name === 'message'))
  assert.deepStrictEqual(m.m, { hello: 1 })
  assert.ok(pids.includes(m.pid))
})

reloads('restart: nothing is lost, the callback means new ready and old gone (before: half of them)', async (t) => {
  const { port, dir, c, pids } = await begin(t)
  const l = load(t, port)
  await l.atLeast(30)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('restart')
  assert.strictEqual((await c.hears('restarted')).err, undefined)
  await gone(pids)
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
  assert.match(c.out, /graceful 0 of 2[^]*graceful 1 of 2[^]*graceful 2 of 2[^]*graceful completion/)
  // A planned end is none that is not (before, on Node 20: each).
  assert.strictEqual((c.out.match(/Worker \d+ exited$/gm) || []).length, 2)
  assert.ok(!/exited abnormally/.test(c.out))
})

reloads('in a restart there are never fewer workers than size (before: half of them)', async (t) => {
  const slow = (version) => server(version).replace('http.createServer', 'const wait = Date.now() + 300; while (Date.now() < wait); http.createServer')
  const { port, dir, c } = await begin(t, '{}', slow('one'), {}, 4)
  c.do('watch')
  fs.writeFileSync(path.join(dir, 'app.js'), slow('two'))
  c.do('restart')
  assert.strictEqual((await c.hears('restarted')).err, undefined)
  c.do('least')
  assert.strictEqual((await c.hears('least')).least, 4)
  assert.strictEqual((await get(port)).version, 'two')
})

beside(() => {
  reloads('a restart onto code that is never ready: an error, the previous workers continue, the next one works (before: never)', async (t) => {
    const { port, dir, c } = await begin(t, '{ readyTimeout: 5 }')
    const l = load(t, port, { clients: 1, keepAlive: 1, pauseMs: 50 })
    fs.writeFileSync(path.join(dir, 'app.js'), 'setInterval(() => {}, 1e3)')
    c.do('restart')
    assert.match((await c.hears('restarted')).err, /the previous workers continue: not ready within 5s/)
    assert.match(c.out, /Aborting restart\./)
    assert.strictEqual((await get(port)).version, 'one')
    fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
    c.do('restart')
    assert.strictEqual((await c.hears('restarted')).err, undefined)
    assert.strictEqual((await get(port)).version, 'two')
    await l.nothingLost()
  })

  test('SIGINT: a request that takes 7 s more is answered, and the code is 0', async (t) => {
    const { c, port, pids } = await begin(t)
    const slow = await hold(port)
    process.kill(c.pid, 'SIGINT')
    await c.until('Graceful', () => /Graceful shutdown\.\.\./.test(c.out))
    await sleep(7000)
    assert.strictEqual((await slow.release()).version, 'one')
    assert.deepStrictEqual(await c.exited, { code: 0, signal: null })
    await gone(pids)
  })

  test('quit and quitHard: 0 and 1; SIGTERM is 0, drained (before: 143)', async (t) => {
    for (const [how, code] of [['quit', 0], ['quitHard', 1], ['SIGTERM', 0]]) {
      const { c, pids } = await begin(t)
      if (how.startsWith('SIG')) process.kill(c.pid, how)
      else c.do(how)
      assert.strictEqual((await c.exited).code, code, how)
      await gone(pids)
    }
  })

  test('silent: the output is the worker\'s stream', async (t) => {
    const dir = folder(t, { 'app.js': server('one', 'setInterval(() => console.log("tick"), 50)') })
    const c = caller(t, dir, `const cm = require(${JSON.stringify(MODULE)})
      cm({ exec: __dirname + '/app.js', size: 1, silent: true, repl: null })
      const look = setInterval(() => { for (const w of Object.values(require('cluster').workers || {})) { clearInterval(look); w.process.stdout.once('data', (d) => say({ name: 'wrote', text: String(d) })) } }, 5)`, { PORT: String(await freePort()) })
    assert.match((await c.hears('wrote')).text, /tick/)
    assert.ok(!/tick/.test(c.out))
  })
})

reloads('a worker that does not end in a restart is killed after stopTimeout, and logged', async (t) => {
  const hangs = (version) => server(version, 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000)')
  const { c, port, pids } = await begin(t, '{ stopTimeout: 300 }', hangs('one'))
  const stuck = await hold(port)
  c.do('restart')
  assert.strictEqual((await c.hears('restarted')).err, undefined)
  await gone(pids)
  await assert.rejects(stuck.answer)
  assert.match(c.out, /Worker \d+, forcefully killing/)
})

reloads('a restart where a worker is missing logs it, and that they are complete', async (t) => {
  const { c, pids, port, dir } = await begin(t)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('restartAtExit')
  await c.hears('restarts at an exit')
  process.kill(pids[0], 'SIGKILL')
  assert.strictEqual((await c.hears('restarted')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
  assert.match(c.out, /resize 1 -> 2, change = 1[^]*resize cb\n[^]*graceful completion/)
})

reloads('quit during a restart ends everything with 0 (before: nothing)', async (t) => {
  const { c, pids } = await begin(t)
  c.do('restart')
  await c.until('a new worker', () => (c.out.match(/setting up/g) || []).length > 2)
  c.do('quit')
  assert.deepStrictEqual(await c.exited, { code: 0, signal: null })
  assert.match(c.out, /Graceful shutdown successful/)
  assert.ok(!/Aborting restart/.test(c.out))
  await gone(pids)
})

reloads('resize during a restart: both are done, and call back', async (t) => {
  const { c, port, dir, pids } = await begin(t)
  const l = load(t, port)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('restart')
  c.do('resize', 3)
  assert.deepStrictEqual(await c.hears('resized'), { name: 'resized', n: 3, workers: 3 })
  await c.until('restarted', () => c.said.some((m) => m.name === 'restarted' && m.err === undefined))
  await gone(pids)
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
})

test('process.exit(7) is 7 (before: 1), and every process ends', async (t) => {
  const { c, pids } = await begin(t)
  c.do('exit', 7)
  assert.deepStrictEqual(await c.exited, { code: 7, signal: null })
  await gone(pids)
})

reloads('kill -9 of the master: nothing is lost, and it restarts after it', async (t) => {
  const { c, port, dir } = await begin(t)
  const l = load(t, port)
  await l.atLeast(30)
  process.kill(masterOf(c.pid).master, 'SIGKILL')
  await l.atLeast(30)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('restart')
  assert.strictEqual((await c.hears('restarted')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
})

reloads('SIGHUP restarts (before, on Node 20: the master died in the middle of it)', async (t) => {
  const { port, dir, c } = await begin(t)
  const l = load(t, port)
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  process.kill(c.pid, 'SIGHUP')
  await c.until('graceful completion', () => /graceful completion/.test(c.out))
  assert.strictEqual((await get(port)).version, 'two')
  await l.nothingLost()
})

reloads('a restart onto code that dies is aborted, with an error; the next one works (before: the callback never came)', async (t) => {
  const { port, dir, c } = await begin(t)
  const l = load(t, port)
  fs.writeFileSync(path.join(dir, 'app.js'), server('bad', 'setTimeout(() => process.exit(1), 30)'))
  c.do('restart')
  assert.match((await c.hears('restarted')).err, /the previous workers continue/)
  assert.match(c.out, /New worker died quickly\. Aborting restart\./)
  assert.strictEqual((await get(port)).version, 'one')
  fs.writeFileSync(path.join(dir, 'app.js'), server('two'))
  c.do('restart')
  assert.strictEqual((await c.hears('restarted')).err, undefined)
  assert.strictEqual((await get(port)).version, 'two')
  await l.stop()
  assert.deepStrictEqual(l.failed.filter((f) => f !== 'ECONNRESET' && f !== 'socket hang up'), []) // those that were inside the one that died
})

reloads('restart during a restart is logged, and calls back', async (t) => {
  const { c, pids } = await begin(t)
  c.do('restart')
  c.do('restart')
  await c.hears('restarted')
  await c.hears('restarted')
  await gone(pids)
  assert.match(c.out, /Already restarting\. {2}Cannot restart yet\./)
})

test('resize up and down', async (t) => {
  const { c, port } = await begin(t)
  const l = load(t, port)
  c.do('resize', 4)
  assert.deepStrictEqual(await c.hears('resized'), { name: 'resized', n: 4, workers: 4 })
  assert.match(c.out, /resize 2 -> 4, change = 2/)
  c.do('resize', 1)
  assert.deepStrictEqual(await c.hears('resized'), { name: 'resized', n: 1, workers: 1 })
  assert.match(c.out, /done resizing/)
  await l.nothingLost()
})

test('a crash is logged, and the worker replaced', async (t) => {
  const { c, pids, port } = await begin(t)
  process.kill(pids[0], 'SIGKILL')
  await c.until('the log', () => /Worker \d+ exited abnormally/.test(c.out) && (c.out.match(/Worker \d+ setting up/g) || []).length === 3)
  await get(port)
})

test('SIGINT quits with code 0 when a long request is done; a second one with 1, at once', async (t) => {
  const one = await begin(t)
  const slow = await hold(one.port)
  process.kill(one.c.pid, 'SIGINT')
  await one.c.until('Graceful', () => /Graceful shutdown\.\.\./.test(one.c.out))
  assert.strictEqual((await slow.release()).version, 'one')
  assert.deepStrictEqual(await one.c.exited, { code: 0, signal: null })
  assert.match(one.c.out, /Graceful shutdown successful/)
  await gone(one.pids)
  const two = await begin(t, '{ stopTimeout: 20000 }', server('one', 'setInterval(() => {}, 1000); process.on("SIGTERM", () => {})'))
  await hold(two.port)
  process.kill(two.c.pid, 'SIGINT')
  await two.c.until('Graceful', () => /Graceful shutdown\.\.\./.test(two.c.out))
  process.kill(two.c.pid, 'SIGINT')
  assert.deepStrictEqual(await two.c.exited, { code: 1, signal: null })
  await gone(two.pids)
})

test('signals: false leaves them to the program', async (t) => {
  const { c } = await begin(t, '{ signals: false }')
  process.kill(c.pid, 'SIGINT')
  assert.strictEqual((await c.exited).signal, 'SIGINT')
})

test('silent: what nobody reads is bounded, and the streams end', async (t) => {
  const { c, pids, port } = await begin(t, '{ silent: true, onMessage: function (m) { if (m === "written") say({ name: "written", kept: this.process.stdout.readableLength + this.process.stdout.writableLength }) } }', server('one', `
    const line = 'x'.repeat(1023) + '\\n'
    let n = 0
    const write = () => { if (n++ < 4096) process.stdout.write(line, write); else process.send('written') }
    if (process.env.WORKER_ID === '0') write()
    process.stderr.write('a last word\\n')
  `))
  const { kept } = await c.until('written', () => c.said.find((m) => m.name === 'written')) // of 4 MiB; what is under way from one side of the stream to the other is counted twice
  assert.ok(kept > 0 && kept <= 65 * 1024, kept + ' bytes')
  c.do('read')
  await c.hears('reading')
  process.kill(pids[0], 'SIGKILL')
  process.kill(pids[1], 'SIGKILL')
  for (let i = 0; i < 2; i++) assert.match((await c.hears('ended')).text, /a last word/)
  await get(port)
})

function ask (address, line, end) {
  return new Promise((resolve, reject) => {
    const s = net.connect(address)
    let text = ''
    s.on('error', reject)
    let over = false
    s.on('data', (d) => {
      text += d
      if (over) return
      if (/> $/.test(text) && line !== null) { s.write(line + '\n'); line = null } else if (end(text)) { over = true; s.end('.exit\n') }
    })
    s.on('close', () => resolve(text))
  })
}

test('the REPL: on a socket that only this user opens, with its context; closing it has no effect on the service (before: the master died)', async (t) => {
  const { c, dir, port, pids } = await begin(t, '{ repl: "repl-socket" }')
  const sock = path.join(dir, 'repl-socket')
  await c.until('repl', () => /ClusterMaster repl listening on/.test(c.out))
  assert.strictEqual(fs.statSync(sock).mode & 0o777, 0o600)
  let text = await ask(sock, 'Object.keys(pids).length + ":" + size + ":" + typeof restart', (s) => /'2:2:function'/.test(s))
  assert.match(text, /^Starting repl #0/)
  assert.match(text, /ClusterMaster \(`help` for cmds\) \d+ 0> /)
  text = await ask(sock, 'help', (s) => /gracefully restart workers/.test(s))
  assert.match(text, /Starting repl #1/)
  // Maps of ids, as the original has them.
  for (const map of ['states', "select('state')"]) {
    text = await ask(sock, map, (s) => /\}/.test(s))
    assert.match(text, /\{ '\d+': 'listening', '\d+': 'listening' \}/, map)
  }
  text = await ask(sock, 'pids', (s) => /\}/.test(s))
  for (const pid of pids) assert.match(text, new RegExp(`'\\d+': ${pid}[ ,]`))
  text = await ask(sock, 'JSON.stringify(Object.values(ages).map((n) => n > 0 && n < 60000))', (s) => /\]/.test(s))
  assert.match(text, /\[true,true\]/)
  text = await ask(sock, '[workers.length, typeof workers[0].id, workers[0].state, typeof workers[0].disconnect, typeof workers[0].kill].join()', (s) => /function'/.test(s))
  assert.match(text, /2,string,listening,function,function/)
  text = await ask(sock, '[typeof cluster.workers, typeof stop, typeof kill, typeof sock.write, typeof repl.close, danger].join()', (s) => /false'/.test(s))
  assert.match(text, /object,function,function,function,function,false/)
  text = await ask(sock, 'debug("to all of you")', (s) => /to all of you\n/.test(s))
  await c.until('stderr', () => /^to all of you$/m.test(c.out))
  // connections is of now: one that has ended does not count.
  const connections = async (n) => {
    for (let i = 0, seen; seen !== n; i++) {
      assert.ok(i < 100, `${seen} connections, ${n} awaited`)
      seen = Number((await ask(sock, '"there are " + connections', (s) => /'there are \d+'/.test(s))).match(/'there are (\d+)'/)[1])
    }
  }
  const other = net.connect(sock)
  await new Promise((resolve) => other.once('data', resolve))
  await connections(2)
  other.destroy()
  await connections(1)
  text = await ask(sock, 'resize(3)', (s) => /done resizing/.test(s)) // what is logged goes to each REPL
  assert.strictEqual((await get(port)).version, 'one')
  await ask(sock, 'kill()', () => false).catch(() => {})
  assert.deepStrictEqual(await c.exited, { code: 1, signal: null })
})

test('the REPL over TCP is on loopback', async (t) => {
  const repl = await freePort()
  const { c } = await begin(t, '{}', server('one'), { CLUSTER_MASTER_REPL: String(repl) }).catch(() => ({}))
  assert.ok(c)
  const other = folder(t, { 'app.js': server('one') })
  const d = caller(t, other, `require(${JSON.stringify(MODULE)})({ exec: __dirname + '/app.js', size: 1 })`, { PORT: String(await freePort()), CLUSTER_MASTER_REPL: String(repl) })
  await d.until('repl', () => /ClusterMaster repl listening on/.test(d.out))
  assert.match(fs.readFileSync('/proc/net/tcp', 'utf8'), new RegExp('0100007F:' + repl.toString(16).toUpperCase().padStart(4, '0')))
  const text = await ask({ host: '127.0.0.1', port: repl }, '1 + 1', (s) => /\n2\n/.test(s) || / 2\n/.test(s) || /> 2/.test(s))
  assert.match(text, /Starting repl #0/)
})

test('kill -9 of the caller ends every process', async (t) => {
  const { c, pids } = await begin(t)
  const keepers = children(c.pid)
  c.child.kill('SIGKILL')
  await gone([...pids, ...keepers])
})
