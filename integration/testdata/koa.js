'use strict'
const Koa = require('koa')
const app = new Koa()
app.use((ctx) => {
  ctx.set('X-Generation', process.env.HANDOFF_GENERATION)
  ctx.body = 'ok\n'
})
app.listen(Number(process.env.PORT))
