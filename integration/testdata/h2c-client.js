'use strict'
// One session; a request for each line on stdin, whose answer is a line.
const session = require('http2').connect(process.argv[2])
session.on('error', (e) => { console.log('error', e.code); process.exit(1) })
session.on('close', () => { console.log('closed'); process.exit(0) })
require('readline').createInterface({ input: process.stdin }).on('line', (path) => {
  const stream = session.request({ ':path': path })
  let generation
  stream.on('response', (h) => { generation = h['x-generation'] })
  stream.on('error', (e) => console.log('error', e.code))
  stream.setEncoding('utf8')
  let body = ''
  stream.on('data', (d) => { body += d })
  stream.on('end', () => console.log(generation, body.trim()))
})
