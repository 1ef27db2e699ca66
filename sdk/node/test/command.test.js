'use strict'
// The package's command: it becomes the binary, or passes on what comes to it. And the
// binary's commands find what the package runs.
const { test } = require('node:test')
const assert = require('node:assert')
const { spawn, spawnSync } = require('child_process')
const { once } = require('events')
const fs = require('fs')
const os = require('os')
const path = require('path')
const { root, folder, freePort, server, caller } = require('./helper')
const { findBinary } = require('../lib/binary')

const COMMAND = path.join(__dirname, '..', 'bin', 'handoff.js')

// A program in the binary's place: says its pid, and every signal but the last.
const PROGRAM = `#!/bin/sh
for s in TERM INT HUP USR1 USR2; do trap "echo $s" $s; done
trap 'exit 7' QUIT
echo "pid $$ $*"
while :; do sleep 0.05; done
`

async function run (t, program, { args = [], stubborn = false } = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'handoff-command-'))
  t.after(() => fs.rmSync(dir, { recursive: true }))
  fs.writeFileSync(path.join(dir, 'handoff'), program, { mode: 0o755 })
  const node = stubborn ? ['-e', `process.execve = undefined; process.argv.splice(1, 0, ${JSON.stringify(COMMAND)}); require(${JSON.stringify(COMMAND)})`, '--'] : [COMMAND]
  const child = spawn(process.execPath, [...node, ...args], { env: { ...process.env, HANDOFF_BIN: path.join(dir, 'handoff') }, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  const lines = require('readline').createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return { child, line: async () => (await lines.next()).value }
}

for (const stubborn of [false, true]) {
  test(`signals and exit code${stubborn ? ', in front of the binary' : ''}`, async (t) => {
    const { child, line } = await run(t, PROGRAM, { args: ['run', 'a b'], stubborn })
    const [, pid, ...args] = (await line()).split(' ')
    assert.strictEqual(args.join(' '), 'run a b')
    if (process.execve && !stubborn) assert.strictEqual(Number(pid), child.pid)
    for (const name of ['TERM', 'INT', 'HUP', 'USR1', 'USR2']) {
      child.kill('SIG' + name)
      assert.strictEqual(await line(), name)
    }
    child.kill('SIGQUIT')
    assert.deepStrictEqual(await once(child, 'exit'), [7, null])
  })

  test(`killed by a signal${stubborn ? ', in front of the binary' : ''}`, async (t) => {
    const { child } = await run(t, '#!/bin/sh\nkill -KILL $$\n', { stubborn })
    assert.deepStrictEqual(await once(child, 'exit'), [null, 'SIGKILL'])
  })
}

test('the package finds its own command in PATH, and goes on', (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'handoff-command-'))
  t.after(() => fs.rmSync(dir, { recursive: true }))
  fs.mkdirSync(path.join(dir, 'a'))
  fs.mkdirSync(path.join(dir, 'b'))
  fs.symlinkSync(COMMAND, path.join(dir, 'a', 'handoff'))
  fs.writeFileSync(path.join(dir, 'b', 'handoff'), '#!/bin/sh\n', { mode: 0o755 })
  assert.throws(() => findBinary({ PATH: path.join(dir, 'a') }), { code: 'HANDOFF_ERR_BINARY_NOT_FOUND' })
  assert.strictEqual(findBinary({ PATH: `${path.join(dir, 'a')}:${path.join(dir, 'b')}` }), path.join(dir, 'b', 'handoff'))
})

test('what a drop-in runs is listed, by the name of its package', async (t) => {
  const dir = folder(t, { 'app.js': server('one'), 'package.json': '{"name": "@me/shop"}' })
  const usual = path.join(dir, 'run')
  const handoff = (...args) => spawnSync(findBinary(), args, { encoding: 'utf8', env: { ...process.env, HANDOFF_RUNTIME_DIR: usual } })
  const c = caller(t, dir, `
const b = require(${JSON.stringify(path.join(root, 'recluster.js'))})(require('path').join(__dirname, 'app.js'), { workers: 1 })
b.on('ready', () => say({ name: 'ready' }))
on('terminate', () => b.terminate(() => say({ name: 'terminated' })))
b.run()`, { PORT: String(await freePort()), HANDOFF_RUNTIME_DIR: usual })
  await c.hears('ready')
  const listed = handoff('ls')
  assert.match(listed.stdout, /^me-shop /m, listed.stderr)
  const { status, stdout } = handoff('status', '--json')
  assert.strictEqual(status, 0)
  assert.strictEqual(JSON.parse(stdout).name, 'me-shop')
  c.do('terminate')
  await c.hears('terminated')
  assert.deepStrictEqual(fs.readdirSync(usual), [])
})
