'use strict'
// What the suites share: a caller's program in a process of its own, servers for it
// to run, and a load that counts every request that fails, with no retries. Tests wait
// for events: only a failure waits for PATIENCE_MS.
const { spawn } = require('child_process')
const { describe, test } = require('node:test')
const assert = require('assert')
const fs = require('fs')
const http = require('http')
const net = require('net')
const os = require('os')
const path = require('path')

const root = path.join(__dirname, '..')
const PATIENCE_MS = Number(process.env.HANDOFF_TEST_PATIENCE_MS || 60000) // for failure only
const CONTROL = process.env.HANDOFF_TEST_OF !== undefined // under never-reloads.js
const VAIN_MS = 3000 // after a reload that was asked for and never comes

// reloads is a case that must fail where nothing ever reloads (never-reloads.js): there
// it passes if it fails, or gets no further, once a reload has been asked for.
const reloads = (name, f) => test(name + ' [reloads]', CONTROL ? (t) => failsWithoutReload(t, f) : f)

const asked = new WeakMap() // by the test's context: a reload has been asked for

async function failsWithoutReload (t, f) {
  let late
  const vain = new Promise((resolve, reject) => {
    asked.set(t, () => { late = late || setTimeout(() => reject(new Error('nothing comes of it')), VAIN_MS) })
  })
  let err
  await Promise.race([f(t), vain]).catch((e) => { err = e })
  clearTimeout(late)
  if (!late) throw new Error('no reload was asked for' + (err ? ', and: ' + err.stack : ''))
  if (!err) throw new Error('passes where nothing reloads')
  t.diagnostic(String(err.message).split('\n')[0])
}

// beside has cases that mostly wait: they run at the same time.
const beside = (f) => describe('beside each other', { concurrency: 8 }, f)

// folder makes a temporary folder with files in it, which goes with the test, once ends()
// has ended what uses it.
function folder (t, files, ends = () => {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'handoff-sdk-'))
  t.after(async () => {
    await ends()
    fs.rmSync(dir, { recursive: true, force: true })
  })
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(dir, name), text)
  return dir
}

let next = process.pid * 131 // suites that run at the same time have ports of their own
function freePort () {
  return new Promise((resolve) => {
    const port = 10000 + (next++ % 10000)
    const server = net.createServer().on('error', () => resolve(freePort())).listen(port, '127.0.0.1', () => server.close(() => resolve(port)))
  })
}

const SERVER = `
const http = require('http')
http.createServer((req, res) => {
  const answer = () => res.end(JSON.stringify({ pid: process.pid, slot: process.env.WORKER_ID, version: VERSION, argv: process.argv.slice(2), execArgv: process.execArgv, env: process.env.COLOUR }))
  if (req.url !== '/hold') return answer()
  req.resume().on('end', answer)
}).listen(Number(process.env.PORT))
process.on('message', (m) => { if (m && m.echo !== undefined) process.send({ echoed: m.echo }) })
`
const server = (version, more = '') => `const VERSION = ${JSON.stringify(version)}\n${SERVER}\n${more}`

// caller runs a program of the user's, with \`say(value)\` to tell the test something,
// and \`on(name, f)\` to be told.
function caller (t, dir, source, env = {}) {
  const file = path.join(dir, 'caller.js')
  fs.writeFileSync(file, `const say = (v) => process.send(v)\nconst heard = {}\nconst on = (n, f) => { heard[n] = f }\nprocess.on('message', (m) => heard[m.do] && heard[m.do](m.arg))\nprocess.channel.unref && 0\n${source}`)
  const child = spawn(process.execPath, [file], { cwd: dir, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  const c = { child, pid: child.pid, said: [], out: '' }
  const waiting = new Set()
  const look = () => { for (const f of [...waiting]) f() }
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (d) => { c.out += d; look() })
  child.on('message', (m) => {
    if (m && m.neverReloads) return asked.has(t) && asked.get(t)()
    c.said.push(m)
    look()
  })
  c.exited = new Promise((resolve) => child.on('exit', (code, signal) => { c.code = code; c.signal = signal; resolve({ code, signal }); look() }))
  c.until = (what, ok) => new Promise((resolve, reject) => {
    const late = setTimeout(() => { waiting.delete(f); reject(new Error(`no ${what} within ${PATIENCE_MS} ms\nsaid ${JSON.stringify(c.said)}\n${c.out}`)) }, PATIENCE_MS)
    const f = () => {
      const v = ok()
      if (v === undefined || v === false) {
        if (c.code === undefined && c.signal === undefined) return
        waiting.delete(f)
        clearTimeout(late)
        return reject(new Error(`the caller ended (${c.code} ${c.signal}) while ${what} was awaited\n${c.out}`))
      }
      waiting.delete(f)
      clearTimeout(late)
      resolve(v)
    }
    waiting.add(f)
    f()
  })
  let cursor = 0
  // hears returns the next thing said that has the name.
  c.hears = (name) => c.until(name, () => {
    while (cursor < c.said.length) {
      const m = c.said[cursor++]
      if (m && m.name === name) return m
    }
  })
  c.do = (name, arg) => child.send({ do: name, arg })
  t.after(() => {
    if (c.code === undefined && c.signal === undefined) child.kill('SIGKILL')
    return c.exited
  })
  return c
}

function get (port, url = '/', { timeout = 15000, agent = false } = {}) {
  return new Promise((resolve, reject) => {
    const req = http.get({ host: '127.0.0.1', port, path: url, agent, timeout }, (res) => {
      let body = ''
      res.on('data', (d) => { body += d })
      res.on('error', reject)
      res.on('end', () => {
        if (res.statusCode !== 200) return reject(new Error('status ' + res.statusCode))
        try { resolve(JSON.parse(body)) } catch (err) { resolve(body) }
      })
    })
    req.on('timeout', () => req.destroy(new Error('no answer')))
    req.on('error', reject)
  })
}

// hold resolves when a worker of server() has taken a request, which lasts until release()
// is called; that returns the answer, of which nothing comes before.
function hold (port) {
  return new Promise((resolve, reject) => {
    const req = http.request({ host: '127.0.0.1', port, path: '/hold', method: 'POST', agent: false, headers: { expect: '100-continue' } })
    const answer = new Promise((resolve, reject) => {
      req.on('error', reject).on('response', (res) => {
        let body = ''
        res.on('data', (d) => { body += d }).on('error', reject).on('end', () => resolve(JSON.parse(body)))
      })
    })
    answer.catch(reject) // who awaits it hears of it, too
    req.on('continue', () => resolve({
      answer,
      release: () => {
        req.end()
        return answer
      }
    }))
  })
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

// load sends requests until it is stopped, or the test ends: of some clients over new
// connections, of others over one that each keeps. Nothing is tried twice. Between two a
// client pauses, which leaves the CPU to those that start.
function load (t, port, { clients = 4, keepAlive = 4, pauseMs = 20 } = {}) {
  const l = { done: 0, kept: 0, failed: [], versions: new Set() }
  let stopped = false
  const counting = new Set()
  t.after(() => l.stop())
  const all = Array.from({ length: clients + keepAlive }, async (_, i) => {
    const agent = i < keepAlive && new http.Agent({ keepAlive: true, maxSockets: 1 })
    while (!stopped) {
      try {
        const answer = await get(port, '/', { agent })
        l.versions.add(answer.version)
        l.done++
        if (agent) l.kept++
      } catch (err) {
        l.failed.push((err.code || err.message) + (agent ? ' on a kept connection' : ''))
      }
      for (const f of [...counting]) f()
      await sleep(pauseMs)
    }
    if (agent) agent.destroy()
  })
  l.atLeast = (n) => new Promise((resolve) => {
    const end = l.done + n
    const f = () => {
      if (!stopped && l.done + l.failed.length < end) return
      counting.delete(f)
      resolve()
    }
    counting.add(f)
    f()
  })
  l.stop = async () => {
    stopped = true
    await Promise.all(all)
    for (const f of [...counting]) f()
    return l
  }
  l.nothingLost = async () => {
    await l.stop()
    assert.deepStrictEqual(l.failed, [], `${l.failed.length} of ${l.done + l.failed.length} requests failed`)
    assert.ok(l.done > 20, `${l.done} requests are too few`)
    assert.ok(keepAlive === 0 || l.kept > 10, `${l.kept} requests on kept connections are too few`)
    return l
  }
  return l
}

const alive = (pid) => {
  try { process.kill(pid, 0) } catch (err) { return false }
  try { return !/^\d+ \(.*\) Z/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8')) } catch (err) { return false }
}

// gone waits until processes have ended.
async function gone (pids) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end;) {
    if (!pids.some(alive)) return
    await sleep(20)
  }
  assert.fail(`still there: ${pids.filter(alive)}`)
}

const children = (pid) => {
  try {
    return fs.readdirSync(`/proc/${pid}/task`).flatMap((task) => fs.readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number))
  } catch (err) { return [] }
}

// masterOf finds the master below a caller: the keeper's child that is a handoff.
function masterOf (pid) {
  for (const keeper of children(pid)) {
    for (const child of children(keeper)) {
      try {
        if (fs.readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('__master')) return { keeper, master: child }
      } catch (err) {}
    }
  }
  return {}
}

module.exports = { root, reloads, beside, folder, freePort, server, caller, get, hold, load, sleep, alive, gone, children, masterOf, PATIENCE_MS }
