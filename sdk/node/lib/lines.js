'use strict'

// lines calls f for each line of a stream that is not empty.
function lines (stream, f) {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (text) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop()
    for (const part of parts) if (part) f(part)
  })
}

module.exports = { lines }
