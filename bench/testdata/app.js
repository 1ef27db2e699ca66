'use strict'
// The same answer under every manager. BENCH_N workers and BENCH_POLICY (rr,
// none) when it is its own cluster primary; else it just listens.
const http = require('http')
const cluster = require('cluster')
const n = Number(process.env.BENCH_N)

if (n && (cluster.isPrimary ?? cluster.isMaster)) {
  cluster.schedulingPolicy = process.env.BENCH_POLICY === 'none' ? cluster.SCHED_NONE : cluster.SCHED_RR
  for (let i = 0; i < n; i++) cluster.fork()
} else {
  http.createServer((req, res) => {
    res.setHeader('X-Generation', process.env.HANDOFF_GENERATION || '1')
    res.end('ok\n')
  }).listen(Number(process.env.PORT), '127.0.0.1')
}
