'use strict'
const { WebSocketServer } = require('ws')
const server = require('http').createServer((req, res) => res.end('ok\n'))
new WebSocketServer({ server }).on('connection', (ws) => {
  ws.on('message', (m) => ws.send(process.env.HANDOFF_GENERATION + ' ' + m))
})
server.listen(Number(process.env.PORT))
