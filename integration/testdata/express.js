'use strict'
const app = require('express')()
app.get('/', (req, res) => {
  res.set('X-Generation', process.env.HANDOFF_GENERATION)
  res.send('ok\n')
})
app.listen(Number(process.env.PORT))
