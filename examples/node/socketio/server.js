'use strict'
// socket.io whose sessions survive a reload: a client stays with its slot (sticky), and
// an open websocket with its worker until it closes, or the drain timeout is over.
//
//   npm install socket.io
//   handoff run -n 2 --balance sticky --drain-timeout 1h server.js
//   kill -USR2 PID     who is connected goes on, who comes new gets the new code
const { Server } = require('socket.io')

const server = require('http').createServer((req, res) => res.end('ok\n'))
new Server(server).on('connection', (socket) => {
  let count = 0 // the session: in this worker's memory
  socket.on('count', (answer) => answer({ count: ++count, session: socket.id, generation: process.env.HANDOFF_GENERATION }))
})
server.listen(process.env.PORT || 3000)
