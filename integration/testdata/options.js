// A server with the options of listen in LISTEN.
const options = { port: Number(process.env.PORT), host: '127.0.0.1', ...JSON.parse(process.env.LISTEN) }
require('http').createServer((req, res) => res.end('ok')).listen(options)
