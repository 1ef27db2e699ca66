'use strict'
// A control: a drop-in (HANDOFF_TEST_OF) under which nothing ever reloads. Each case of
// a reload must fail against it, and no other.
const { Master } = require('../lib/master')

Master.prototype.reload = async () => {}
const start = Master.prototype.start
Master.prototype.start = function () {
  // What handoff does by itself, when files change.
  if (this.options.folder !== undefined) this.options.settings = { ...this.options.settings, watchDelay: '10h' }
  return start.call(this)
}
module.exports = require('../' + process.env.HANDOFF_TEST_OF)
