'use strict'
// The drain preload by itself: this process is the master.
const { test } = require('node:test')
const assert = require('assert')
const { once } = require('events')
const { fork } = require('child_process')
const net = require('net')
const path = require('path')
const { beside, folder } = require('./helper')

const preload = path.join(__dirname, '..', 'preload.cjs')

// worker starts a program under the preload; got is what it sends.
function worker (t, lingerMs, program) {
  const dir = folder(t, { 'app.js': program })
  const child = fork(path.join(dir, 'app.js'), { execArgv: ['--require', preload], env: { ...process.env, HANDOFF_PRELOAD_LINGER_MS: String(lingerMs) } })
  t.after(() => child.kill('SIGKILL'))
  const got = []
  child.on('message', (m) => got.push(m))
  return { child, got, drain: (message) => child.send({ cmd: 'NODE_HANDOFF', act: 'drain', message }) }
}

const ECHO = "process.on('message', (m) => process.send(m))\n"
const SERVE = ECHO + "require('http').createServer((req, res) => res.end()).listen(0, '127.0.0.1', function () { process.send(this.address().port) })"

for (const [ends, lingerMs] of [['the linger', 1000], ['the last connection', 1 << 30]]) {
  test('the messages of a drain come after ' + ends + ', those of users at once', async (t) => {
    const { child, got, drain } = worker(t, lingerMs, SERVE)
    const [port] = await once(child, 'message')
    const kept = net.connect(port, '127.0.0.1')
    kept.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await once(kept, 'data')
    child.send('before')
    drain('shutdown')
    for (const m of [{ cmd: 'disconnect' }, 'shutdown', 'shutdown', { cmd: 'disconnect', by: 'a user' }, 'hello']) child.send(m)
    while (!got.includes('hello')) await once(child, 'message')
    if (ends !== 'the linger') kept.end()
    while (got.length < 7) await once(child, 'message')
    assert.deepStrictEqual(got.slice(1), ['before', 'shutdown', { cmd: 'disconnect', by: 'a user' }, 'hello', { cmd: 'disconnect' }, 'shutdown'])
    kept.destroy()
  })
}

test('a program without an HTTP server gets the messages of a drain at once', async (t) => {
  const { child, got, drain } = worker(t, 1 << 30, ECHO + "process.send('up')")
  await once(child, 'message')
  drain('shutdown')
  for (const m of [{ cmd: 'disconnect' }, 'shutdown', 'hello']) child.send(m)
  while (!got.includes('hello')) await once(child, 'message')
  assert.deepStrictEqual(got.slice(1), [{ cmd: 'disconnect' }, 'shutdown', 'hello'])
})

// clusterWorker starts a program as a worker of the cluster module, whose primary this
// process is: it answers nothing by itself.
function clusterWorker (t, program, file = 'app.cjs') {
  const dir = folder(t, { [file]: program })
  const child = fork(path.join(dir, file), {
    execArgv: ['--require', preload],
    env: { ...process.env, HANDOFF_PRELOAD_LINGER_MS: '1000', NODE_UNIQUE_ID: '1' },
    silent: true
  })
  t.after(() => child.kill('SIGKILL'))
  return child
}

// An unref'd timer fires only in a process that something else keeps alive.
const STAYS = "setTimeout(() => process.send('stays'), 300).unref()\n"
const ESM = "import { setTimeout as sleep } from 'timers/promises'\n"

beside(() => {
  for (const [what, code, program, file] of [
    ['a task', 0, "console.log('done')"],
    ['a task that fails', 3, 'process.exitCode = 3'],
    ['one that takes its time', 0, 'setTimeout(() => {}, 400)'],
    ['one with a top-level await', 4, ESM + 'await sleep(400)\nprocess.exitCode = 4', 'app.mjs'],
    ['one whose await is never settled', 13, 'await new Promise(() => {})', 'app.mjs'],
    ['one with a thread', 5, "const w = require('worker_threads'); new w.Worker('setTimeout(() => {}, 400)', { eval: true }).on('exit', () => { process.exitCode = 5 })"],
    ['one with a child', 6, "require('child_process').exec('sleep 0.4', () => { process.exitCode = 6 })"],
    ['one that has no listener for messages any more', 7, "process.once('message', () => { process.exitCode = 7 })"],
    ['one that has no listener of its worker any more', 8, "require('cluster').worker.once('message', () => { process.exitCode = 8 })"]
  ]) {
    test('ends as it would alone: ' + what, async (t) => {
      const child = clusterWorker(t, STAYS + program, file)
      if (program.includes("once('message'")) child.on('message', (m) => { if (m === 'stays') child.send('now') })
      const [got] = await once(child, 'exit')
      assert.strictEqual(got, code)
    })
  }

  for (const [what, program] of [
    ['process.on(message)', "process.on('message', () => {})"],
    ['cluster.worker.on(message)', "require('cluster').worker.on('message', () => {})"],
    ['cluster.worker.on(disconnect)', "require('cluster').worker.once('disconnect', () => {})"],
    ['a socket that it waits for', "require('net').createServer().listen(1)"],
    ['a socket that it waits for, on a host', "require('net').createServer().listen(1, 'localhost')"],
    ['a UDP socket that it waits for', "require('dgram').createSocket('udp4').bind(1)"]
  ]) {
    test('stays for ' + what, async (t) => {
      const child = clusterWorker(t, STAYS + program)
      const [message] = await once(child, 'message')
      assert.strictEqual(message, 'stays')
    })
  }

  for (const [options, asks] of [
    ["{ port: 1, host: '127.0.0.1', exclusive: true }", true],
    ["{ port: '1', reusePort: true }", true],
    ["{ path: 'x.sock', exclusive: true }", true],
    ["{ port: 0, host: '127.0.0.1', exclusive: true }", false]
  ]) {
    test('asks its master for ' + options + ': ' + asks, async (t) => {
      const child = clusterWorker(t, 'const o = ' + options + "\nrequire('net').createServer().listen(o, () => process.send('own'))\nif (!o.exclusive && !o.reusePort) throw new Error('changed')")
      const asked = new Promise((resolve) => child.on('internalMessage', (m) => { if (m.act === 'queryServer') resolve(true) }))
      assert.strictEqual(await Promise.race([asked, once(child, 'message').then(() => false)]), asks)
    })
  }

  test('stays when its server has closed', async (t) => {
    const child = clusterWorker(t, "const s = require('net').createServer().listen(0, () => s.close(() => {" + STAYS + '}))')
    child.on('internalMessage', (m) => {
      if (m.act !== 'queryServer') return
      const server = net.createServer().listen(0, '127.0.0.1', () => {
        child.send({ cmd: 'NODE_CLUSTER', ack: m.seq, key: 'k', errno: 0, data: null }, server._handle)
      })
      t.after(() => server.close())
    })
    assert.strictEqual((await once(child, 'message'))[0], 'stays')
  })
})
