'use strict'
// A plain HTTP server. Nothing in it knows of handoff, but the last line, which
// says that it is warm; run it with --ready-when ready.
const http = require('http')

const port = Number(process.env.PORT) || 3000
const bootMs = Number(process.env.BOOT_MS ?? 300) // a slow start: caches, connections

const server = http.createServer((req, res) => {
  const work = Number(new URL(req.url, 'http://x').searchParams.get('ms')) || 0
  setTimeout(() => {
    res.setHeader('X-Generation', process.env.HANDOFF_GENERATION || '0')
    res.setHeader('X-Slot', process.env.WORKER_ID || '0')
    res.end(`Hello from process ${process.pid}, slot ${process.env.WORKER_ID}, generation ${process.env.HANDOFF_GENERATION}\n`)
  }, work)
})

setTimeout(() => {
  server.listen(port, () => {
    if (process.send) process.send('ready')
  })
}, bootMs)
