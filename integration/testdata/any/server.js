'use strict'
// For npm start and the like: no SIGTERM handler, nothing of handoff's.
require('http').createServer((req, res) => res.end('ok\n')).listen(Number(process.env.PORT), '127.0.0.1')
