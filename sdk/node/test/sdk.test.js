'use strict'
// The SDK in workers, under handoff by its own command line.
const test = require('node:test')
const assert = require('assert')
const { spawn, execFileSync } = require('child_process')
const fs = require('fs')
const path = require('path')
const { root, folder, freePort, get, load } = require('./helper')
const { findBinary } = require('../lib/binary')

// service runs `handoff run`, and waits for its events.
async function service (t, app, flags = [], command = []) {
  const port = await freePort()
  const dir = folder(t, { 'app.js': app })
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
    const late = setTimeout(() => { waiting.delete(f); reject(new Error(`no ${what}\n${s.out}\n${s.events.map((e) => e.msg).join('\n')}`)) }, 30000)
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
  t.after(async () => { child.kill('SIGTERM'); child.kill('SIGINT'); await s.exited })
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

for (const [name, flags, command] of [['node', [], []], ['bind (behind a shell)', [], ['sh', '-c', 'node app.js']]]) {
  test(`onDrain under ${name}: awaited before the exit, bounded, a failing one hurts nobody`, async (t) => {
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
