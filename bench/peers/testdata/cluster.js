// A home-made cluster with a rolling restart, as it is written when care is taken: the
// new worker listens before the old one is told to go.
const cluster = require('cluster')
const log = (s) => console.log(s)
let n = Number(process.env.WORKERS)
cluster.setupPrimary({ exec: process.env.APP })
const fork = () => new Promise((resolve, reject) => {
  const w = cluster.fork()
  w.once('listening', () => resolve(w))
  w.once('exit', () => { reject(new Error('a worker ended before it listened')); if (!w.replaced) setTimeout(() => fork().catch(() => {}), 100) })
})
const retire = (w) => {
  w.replaced = true
  if (process.env.RETIRE) w.process.kill(process.env.RETIRE) // it drains by itself
  else w.disconnect()
  setTimeout(() => w.process.kill('SIGKILL'), 5000).unref()
}
let busy = false
process.on('SIGUSR2', async () => {
  if (busy) return
  busy = true
  try {
    for (const old of Object.values(cluster.workers).filter((w) => !w.replaced)) {
      await fork()
      retire(old)
    }
  } catch (e) { log(e.message) }
  busy = false
})
process.on('SIGTTOU', () => { n--; retire(Object.values(cluster.workers).filter((w) => !w.replaced).pop()) })
process.on('SIGTTIN', () => { n++; fork() })
process.on('SIGTERM', () => process.exit(0))
for (let i = 0; i < n; i++) fork()
