'use strict'
// The SDK in workers, under handoff by its own command line.
const test = require('node:test')
const assert = require('assert')
const { spawn, execFileSync } = require('child_process')
const fs = require('fs')
const http = require('http')
const path = require('path')
const { root, beside, folder, freePort, get, load, PATIENCE_MS } = require('./helper')
const { findBinary } = require('../lib/binary')

// service runs `handoff run`, and waits for its events.
async function service (t, app, flags = [], command = []) {
  const port = await freePort()
  const dir = folder(t, { 'app.js': app }, async () => { child.kill('SIGTERM'); child.kill('SIGINT'); await s.exited })
  const child = spawn(findBinary(), ['run', '--log', 'json', '--name', 'sdk', '--keepalive-linger', '200ms', ...flags, '--', ...(command.length ? command : [path.join(dir, 'app.js')])], {
    cwd: dir, env: { ...process.env, PORT: String(port), HANDOFF_RUNTIME_DIR: dir, SDK: root }, stdio: ['ignore', 'pipe', 'pipe']
  })
  const s = { port, dir, child, pid: child.pid, events: [], out: '' }
  const waiting = new Set()
  let rest = ''
  child.stderr.on('data', (d) => {
    const lines = (rest + d).split('\n')
    rest = lines.pop()
    for (const line of lines) {
      try { s.events.push(JSON.parse(line)) } catch (err) { s.out += line + '\n' }
    }
    for (const f of [...waiting]) f()
  })
  child.stdout.on('data', (d) => { s.out += d; for (const f of [...waiting]) f() })
  s.exited = new Promise((resolve) => child.on('exit', (code, signal) => { resolve({ code, signal }); for (const f of [...waiting]) f() }))
  s.until = (what, ok) => new Promise((resolve, reject) => {
    const late = setTimeout(() => { waiting.delete(f); reject(new Error(`no ${what}\n${s.out}\n${s.events.map((e) => e.msg).join('\n')}`)) }, PATIENCE_MS)
    const f = () => {
      const v = ok()
      if (v) { clearTimeout(late); waiting.delete(f); resolve(v) }
    }
    waiting.add(f)
    f()
  })
  let cursor = 0
  s.event = (name) => s.until(name, () => { while (cursor < s.events.length) { const e = s.events[cursor++]; if (e.event === name) return e } })
  s.reload = async () => { child.kill('SIGUSR2'); return s.event('cluster.reloaded') }
  return s
}

test('without handoff everything is there, and does nothing', () => {
  const out = execFileSync(process.execPath, ['-e', `
    const h = require(${JSON.stringify(root)})
    console.log(JSON.stringify([h.isHandoff, h.slot, h.generation, h.ready(), h.requestRestart(), h.reportRequests(5), typeof h.onDrain(() => {})]))`], { env: { PATH: process.env.PATH } })
  assert.deepStrictEqual(JSON.parse(out), [false, 0, 0, false, false, false, 'function'])
})

test('ESM', () => {
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', `
    import sdk, { ready, slot } from ${JSON.stringify(path.join(root, 'index.mjs'))}
    console.log(typeof ready, slot, sdk.isHandoff)`], { env: { PATH: process.env.PATH } })
  assert.strictEqual(String(out), 'function 0 false\n')
})

const APP = `
const h = require(process.env.SDK)
const server = require('http').createServer((q, r) => {
  if (q.url === '/leave') h.requestRestart()
  if (q.url === '/tired') h.reportRequests(1000)
  r.end(JSON.stringify({ slot: h.slot, generation: h.generation, isHandoff: h.isHandoff, pid: process.pid }))
}).listen(process.env.PORT)
`

test('slot, generation, ready, requestRestart, reportRequests', async (t) => {
  const s = await service(t, APP + 'setTimeout(() => h.ready(), 100)', ['-n', '2', '--ready-when', 'ready', '--max-requests', '900'])
  await s.event('cluster.started')
  const seen = new Set()
  while (seen.size < 2) {
    const a = await get(s.port)
    assert.ok(a.isHandoff && a.generation === 1)
    seen.add(a.slot)
  }
  await s.reload()
  assert.strictEqual((await get(s.port)).generation, 2)
  const { pid } = await get(s.port, '/leave')
  assert.strictEqual((await s.event('worker.leaving')).pid, pid)
  await s.event('worker.ready')
  // It is said that the new one serves a moment before the kernel knows it.
  while ((await get(s.port, '/tired')).pid === pid);
  assert.match((await s.event('worker.recycled')).reason, /1000 requests/)
})

beside(() => {
  for (const [name, flags, command] of [['node', [], []], ['bind (behind a shell)', [], ['sh', '-c', 'node app.js']]]) {
    test(`onDrain under ${name}: awaited before the exit, bounded, one that fails has no effect on others`, async (t) => {
      const s = await service(t, APP + `
        h.onDrain(async () => { await new Promise((resolve) => setTimeout(resolve, 2500)); console.log('drained ' + process.pid) })
        h.onDrain(() => { throw new Error('bad hook') })
        h.onDrain(() => new Promise(() => {}), { timeout: 300 })
        h.onDrain(() => console.log('taken out'))()
      `, ['-n', '1', '--drain-timeout', '10s', ...flags], command)
      const first = await s.event('cluster.started')
      assert.ok(first)
      const l = load(t, s.port)
      const { pid } = await get(s.port)
      await s.reload()
      await s.until('drained', () => s.out.includes('drained ' + pid))
      const gone = await s.event('worker.shutdown')
      assert.strictEqual(gone.code, 0, JSON.stringify(gone))
      assert.ok(s.out.includes('a drain hook failed'))
      assert.ok(!s.out.includes('taken out'))
      await l.nothingLost()
    })
  }
})

// A listener takes the signal's own effect away: somebody must end the process.
for (const [name, flags, app] of [
  ['--no-preload', ['--no-preload'], APP],
  ['a process that listens on nothing', ['--ready-when', 'started'], "const h = require(process.env.SDK); console.log('up ' + process.pid); setInterval(() => {}, 1000)\n"]
]) {
  test(`onDrain by a signal, ${name}: the process ends after the hooks`, async (t) => {
    const s = await service(t, app + `
      h.onDrain(async () => { await new Promise((resolve) => setTimeout(resolve, 300)); console.log('drained ' + process.pid) })`,
    ['-n', '1', '--contract', name === '--no-preload' ? 'bind' : 'activation', '--drain-timeout', '20s', ...(name === '--no-preload' ? [] : ['--listen', '127.0.0.1:' + await freePort()]), ...flags])
    await s.event('cluster.started')
    if (name !== '--no-preload') await s.until('up', () => s.out.includes('up '))
    await s.reload()
    const gone = await s.event('worker.shutdown')
    assert.strictEqual(gone.killed_by, 'SIGTERM', JSON.stringify(gone))
    assert.ok(s.out.includes('drained ' + gone.pid))
    assert.ok(!s.events.some((e) => e.event === 'worker.terminated'))
  })
}

test('onDrain by a signal that the program handles once: it ends as it likes', async (t) => {
  const s = await service(t, APP + `
    process.once('SIGTERM', () => setTimeout(() => process.exit(7), 600))
    h.onDrain(() => console.log('drained'))`, ['-n', '1', '--contract', 'bind', '--no-preload'])
  await s.event('cluster.started')
  await s.reload()
  assert.strictEqual((await s.event('worker.shutdown')).code, 7)
  assert.ok(s.out.includes('drained'))
})

test('requestRestart and reportRequests behind a launcher; process.send stays undefined', async (t) => {
  const s = await service(t, APP + `
    console.log('send ' + typeof process.send)
    let n = 0
    server.on('request', (q) => { if (q.url === '/many') for (let i = 0; i < 500; i++) h.reportRequests(++n) })`,
  ['-n', '1', '--max-requests', '450', '--respawn', '100ms'], ['sh', '-c', 'node app.js; exit'])
  await s.event('cluster.started')
  await get(s.port, '/leave')
  await s.event('worker.leaving')
  await s.event('worker.ready')
  await s.event('worker.shutdown')
  await get(s.port, '/many')
  await s.event('worker.recycled')
  assert.ok(s.out.includes('send undefined'), s.out)
})

// The preload of the package, required by the program: by itself where handoff injects
// none, and not twice where it does.
for (const [name, flags, command, event, want] of [
  ['node', [], [], 'internalMessage', 0],
  ['node, --no-preload', ['--no-preload'], [], 'internalMessage', 1],
  ['bind', [], ['sh', '-c', 'node app.js'], 'SIGTERM', 1],
  ['bind, --no-preload', ['--no-preload'], ['sh', '-c', 'node app.js'], 'SIGTERM', 1]
]) {
  test(`the preload required under ${name}: once, and idle connections linger`, async (t) => {
    const s = await service(t, `
      const before = process.listenerCount('${event}')
      require(process.env.SDK + '/preload.cjs')
      require('http').createServer((q, r) => r.end(JSON.stringify({ pid: process.pid, n: process.listenerCount('${event}') - before }))).listen(process.env.PORT)`,
    ['-n', '1', '--keepalive-linger', '5s', ...flags], command)
    await s.event('cluster.started')
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    t.after(() => agent.destroy())
    const ask = () => new Promise((resolve, reject) => {
      const req = http.get({ host: '127.0.0.1', port: s.port, agent }, (res) => {
        let text = ''
        res.on('data', (d) => { text += d }).on('end', () => resolve({ ...JSON.parse(text), reused: req.reusedSocket, connection: res.headers.connection }))
      }).on('error', reject)
    })
    const before = await ask()
    assert.strictEqual(before.n, want)
    await s.reload()
    await s.event('worker.draining')
    for (let after = before; after.connection !== 'close';) {
      after = await ask()
      assert.deepStrictEqual([after.pid, after.reused], [before.pid, true])
    }
    await s.event('worker.shutdown')
  })
}

test('the binary: HANDOFF_BIN, PATH, and a clear error', () => {
  const dir = fs.mkdtempSync('/tmp/handoff-bin-')
  try {
    assert.throws(() => findBinary({ HANDOFF_BIN: '/nonexistent' }), /HANDOFF_BIN is \/nonexistent, which is not an executable file/)
    assert.throws(() => findBinary({ PATH: dir }), /no binary found\. Install @handoff\/linux-(x64|arm64).*set HANDOFF_BIN.*PATH/)
    fs.writeFileSync(path.join(dir, 'handoff'), '#!/bin/sh\n', { mode: 0o755 })
    assert.strictEqual(findBinary({ PATH: '/nonexistent:' + dir }), path.join(dir, 'handoff'))
  } finally {
    fs.rmSync(dir, { recursive: true })
  }
})
