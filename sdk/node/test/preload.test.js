'use strict'
// The drain preload by itself: this process is the master.
const { test } = require('node:test')
const assert = require('assert')
const { once } = require('events')
const { fork } = require('child_process')
const net = require('net')
const path = require('path')
const { folder } = require('./helper')

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
