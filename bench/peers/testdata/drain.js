// The same server, which drains by itself as well as a program can: it says Connection:
// close while it drains, and lets idle connections stay for three seconds.
const http = require('http')
let draining = false
const server = http.createServer((q, r) => {
  if (draining) r.setHeader('Connection', 'close')
  r.end(`${process.pid}\n`)
})
server.keepAliveTimeout = 60000
server.listen(process.env.PORT, '127.0.0.1', () => process.send && process.send('ready'))
const drain = () => {
  if (draining) return
  draining = true
  const close = server.closeIdleConnections
  server.closeIdleConnections = () => {} // close() would cut them at once
  server.close(() => process.exit(0))
  server.closeIdleConnections = close
  setTimeout(() => { server.closeIdleConnections(); setTimeout(() => process.exit(0), 1000).unref() }, 3000)
}
process.on('SIGINT', drain)
process.on('SIGTERM', drain)
process.on('disconnect', drain)
process.on('message', (m) => m === 'shutdown' && drain())
