// A plain server: it knows nothing of reloads but to say that it is ready.
const http = require('http')
http.createServer((q, r) => r.end(`${process.pid}\n`)).listen(process.env.PORT, '127.0.0.1', () => process.send && process.send('ready'))
