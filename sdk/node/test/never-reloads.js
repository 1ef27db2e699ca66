'use strict'
// A control: recluster's interface with a reload that does nothing. Each case of a
// reload must fail against it.
const real = require('../recluster.js')
module.exports = (file, opt) => {
  const b = real(file, opt)
  b.reload = (cb) => cb && process.nextTick(cb)
  return b
}
