'use strict'
// A Connection header of the program's own, in each of the forms that Node takes.
require('http').createServer((req, res) => {
  const keep = 'keep-alive'
  switch (req.url) {
    case '/set': res.setHeader('Connection', keep); res.end('ok'); break
    case '/object': res.writeHead(200, { connection: keep, 'Content-Length': 2 }); res.end('ok'); break
    case '/array': res.writeHead(200, ['Connection', keep, 'Content-Length', '2']); res.end('ok'); break
    case '/reason': res.writeHead(200, 'Fine', { CONNECTION: keep }); res.end('ok'); break
    case '/chunked': res.write('o'); setImmediate(() => res.end('k')); break
    case '/writehead': res.setHeader('X-A', 'b'); res.writeHead(200); res.end('ok'); break
    default: res.writeHead(404).end()
  }
}).listen(0)
