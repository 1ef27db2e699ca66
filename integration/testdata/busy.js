'use strict'
// Is busy for a while when it is told to drain, and reads nothing.
require('http').createServer((req, res) => res.end('ok\n')).listen(Number(process.env.PORT))
process.on('message', (m) => {
  if (m.cmd !== 'disconnect') return
  require('fs').writeSync(2, 'busy\n')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500)
})
