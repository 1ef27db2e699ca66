'use strict'
// Heeds nothing: no drain, no SIGTERM. Its child does not either.
const http = require('http')
const { spawn } = require('child_process')
process.on('SIGTERM', () => {})
process.on('disconnect', () => {})
const child = spawn('sh', ['-c', 'trap "" TERM; while :; do sleep 1; done'], { stdio: 'ignore' })
setInterval(() => {}, 1000)
http.createServer((req, res) => res.end(String(child.pid))).listen(0)
