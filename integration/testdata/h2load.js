'use strict'
// A strict HTTP/2 client: sessions that ask one request after another; one that is
// told to go (GOAWAY) is left, and a new one asks the next request. Nothing is asked
// twice. node h2load.js URL SESSIONS; on a line of stdin it stops and reports.
const http2 = require('http2')
const url = process.argv[2]
const report = { requests: 0, failed: {}, goaways: 0, sessions: 0 }
let stopped = false

function open () {
  report.sessions++
  const session = http2.connect(url, { rejectUnauthorized: false })
  session.left = false
  session.on('goaway', () => { session.left = true; report.goaways++ })
  session.on('close', () => { session.left = true })
  session.on('error', () => { session.left = true })
  return session
}

function ask (session) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':path': '/' })
    let status = 0
    stream.setTimeout(15000, () => reject(new Error('timeout')))
    stream.on('response', (h) => { status = h[':status'] })
    stream.on('error', reject)
    stream.resume()
    stream.on('end', () => status === 200 ? resolve() : reject(new Error('status ' + status)))
    stream.on('close', () => reject(new Error('closed without an answer')))
  })
}

async function client () {
  let session = open()
  while (!stopped) {
    if (session.left || session.closed || session.destroyed) { session.close(); session = open() }
    report.requests++
    try {
      await ask(session)
    } catch (err) {
      const what = err.code || err.message
      report.failed[what] = (report.failed[what] || 0) + 1
      session.destroy()
      session = open()
    }
    if (report.requests === 100) console.log('warm')
  }
  session.close()
}

const all = Array.from({ length: Number(process.argv[3]) }, client)
process.stdin.once('data', async () => {
  stopped = true
  await Promise.all(all)
  console.log(JSON.stringify(report))
  process.exit(0)
})
