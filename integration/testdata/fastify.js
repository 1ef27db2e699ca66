'use strict'
const app = require('fastify')()
app.get('/', async (req, reply) => {
  reply.header('X-Generation', process.env.HANDOFF_GENERATION)
  return 'ok\n'
})
app.listen({ port: Number(process.env.PORT), host: '0.0.0.0' })
// With a handler of its own, which refuses requests with 503 from then on.
if (process.env.CLOSE_ON) process.once(process.env.CLOSE_ON, () => app.close().then(() => process.exit(0)))
