'use strict'
// Is busy for a while from the beginning of its drain on, and reads nothing.
require('http').createServer((req, res) => res.end('ok\n')).listen(Number(process.env.PORT))
process.on('internalMessage', (m) => {
  if (m.act !== 'drain') return
  require('fs').writeSync(2, 'busy\n')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500)
})
