'use strict'
// A server that the cluster module does not know. The port is the kernel's to choose,
// and said.
const server = require('http').createServer((req, res) => setTimeout(() => res.end('ok'), Number(new URL(req.url, 'http://x').searchParams.get('ms')) || 0))
server.listen({ port: 0, host: '127.0.0.1', exclusive: true }, () => console.error('exclusive ' + server.address().port))
require('http').createServer((req, res) => res.end('ok')).listen(Number(process.env.PORT))
