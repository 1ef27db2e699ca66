'use strict'
// HTTP/2 without TLS.
require('http2').createServer((req, res) => {
  res.setHeader('x-generation', process.env.HANDOFF_GENERATION)
  setTimeout(() => res.end('ok\n'), Number(new URL(req.url, 'http://x').searchParams.get('ms')) || 0)
}).listen(Number(process.env.PORT))
