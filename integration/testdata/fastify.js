'use strict'
const app = require('fastify')()
app.get('/', async (req, reply) => {
  reply.header('X-Generation', process.env.HANDOFF_GENERATION)
  return 'ok\n'
})
app.listen({ port: Number(process.env.PORT), host: '0.0.0.0' })
// With a handler of its own, for a signal or a message, which refuses requests with 503
// from then on.
const on = process.env.CLOSE_ON
const close = () => {
  console.error('closed by ' + on)
  app.close().then(() => process.exit(0))
}
if (/^SIG/.test(on)) process.once(on, close)
else if (on) process.on('message', (message) => { if (message === on || message.cmd === on) close() })
