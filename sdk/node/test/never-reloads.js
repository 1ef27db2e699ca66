'use strict'
// A control: a drop-in (HANDOFF_TEST_OF) under which nothing ever reloads; the test is
// told of each reload that is asked for (helper.js). Each case of a reload must fail
// against it, and no other.
const fs = require('fs')
const { Master } = require('../lib/master')

const asked = () => process.send && process.connected && process.send({ neverReloads: true })

Master.prototype.reload = async () => asked()
const start = Master.prototype.start
Master.prototype.start = function () {
  // What handoff does by itself, when files change.
  const { folder } = this.options
  if (folder !== undefined) {
    this.options.settings = { ...this.options.settings, watchDelay: '10h' }
    fs.watch(folder, asked).unref()
  }
  return start.call(this)
}
module.exports = require('../' + process.env.HANDOFF_TEST_OF)
