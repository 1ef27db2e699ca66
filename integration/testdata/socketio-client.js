'use strict'
// One client; a line on stdin is a count, whose answer is a line.
const socket = require('socket.io-client').io(process.argv[2], { reconnection: false })
socket.on('connect_error', (err) => { console.log('error ' + err.message); process.exit(1) })
socket.on('disconnect', (why) => { console.log('disconnected ' + why); process.exit(1) })
// Polling comes first, then the upgrade: the session is a websocket's from then on.
socket.on('connect', () => {
  const said = () => console.log('connected ' + socket.io.engine.transport.name)
  if (socket.io.engine.transport.name === 'websocket') said()
  else socket.io.engine.on('upgrade', said)
})
require('readline').createInterface({ input: process.stdin }).on('line', () => socket.emit('count', (a) => console.log([a.count, a.session, a.generation].join(' '))))
