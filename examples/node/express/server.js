'use strict'
// An ordinary Express app that boots slowly and says when it is warm; run it
// with --ready-when ready. `npm install` first.
const express = require('express')

const port = Number(process.env.PORT) || 3000
const bootMs = Number(process.env.BOOT_MS ?? 300)

const app = express()

app.use((req, res, next) => {
  res.set('X-Generation', process.env.HANDOFF_GENERATION || '0')
  res.set('X-Slot', process.env.WORKER_ID || '0')
  next()
})

app.get('/', (req, res) => {
  res.send(`Hello from process ${process.pid}, generation ${process.env.HANDOFF_GENERATION}\n`)
})

app.get('/slow', (req, res) => {
  setTimeout(() => res.send('done\n'), Number(req.query.ms) || 1000)
})

setTimeout(() => {
  app.listen(port, (err) => {
    if (err) throw err // Express 5 calls back with it
    if (process.send) process.send({ cmd: 'ready' })
  })
}, bootMs)
