'use strict'
// The ordinary server of most tests. Environment: PORT, BOOT_MS, READY (send
// 'ready' when listening), HOST.
const http = require('http')
const generation = process.env.HANDOFF_GENERATION

const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://x')
  res.setHeader('X-Generation', generation)
  res.setHeader('X-Slot', process.env.WORKER_ID)
  res.setHeader('X-Pid', process.pid)
  const ms = Number(url.searchParams.get('ms'))
  if (ms) setTimeout(() => res.end('slow\n'), ms)
  else res.end('ok\n')
})

setTimeout(() => {
  const listening = () => { if (process.env.READY) process.send('ready') }
  if (process.env.HOST) server.listen(Number(process.env.PORT), process.env.HOST, listening)
  else server.listen(Number(process.env.PORT), listening)
}, Number(process.env.BOOT_MS) || 0)
