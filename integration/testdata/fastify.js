'use strict'
const app = require('fastify')()
app.get('/', async (req, reply) => {
  reply.header('X-Generation', process.env.HANDOFF_GENERATION)
  return 'ok\n'
})
app.listen({ port: Number(process.env.PORT), host: '0.0.0.0' })
