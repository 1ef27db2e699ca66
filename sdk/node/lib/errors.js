'use strict'
// The errors of this package, by code. Codes never change; messages may. A test compares
// the table in README.md and HandoffErrorCode in index.d.ts with this.
const { format } = require('util')

const codes = {}

function define (code, message, Base = Error) {
  codes[code] = class extends Base {
    constructor (...args) {
      super(format(message, ...args))
      this.code = code
    }
  }
}

define('HANDOFF_ERR_BINARY_NOT_FOUND', 'handoff: no binary found. Install %s (npm install leaves it out with --omit=optional), set HANDOFF_BIN to the path of one, or put it into PATH')
define('HANDOFF_ERR_BINARY_NOT_EXECUTABLE', 'handoff: HANDOFF_BIN is %s, which is not an executable file')
define('HANDOFF_ERR_EXITED', 'handoff ended with code %s')
define('HANDOFF_ERR_KILLED', 'handoff was killed by %s')
define('HANDOFF_ERR_NOT_RUNNING', 'handoff is not running: %s')
define('HANDOFF_ERR_ENDED', 'handoff has ended')
define('HANDOFF_ERR_NO_RESPONSE', 'handoff does not respond: %s')
define('HANDOFF_ERR_REFUSED', 'handoff: %s')
define('HANDOFF_ERR_RELOAD_FAILED', 'the new code does not serve; the previous workers continue: %s')
define('HANDOFF_ERR_CONFIG', '%s')
define('HANDOFF_ERR_COMMAND_FAILED', '%s')
define('HANDOFF_ERR_VERSION_NOT_FOUND', 'Unable to read version from .rack.json: %s does not contain one')
define('HANDOFF_ERR_WORKER_NOT_FOUND', '%s: no worker serves port %s')
define('HANDOFF_ERR_WORKER_BUSY', 'handoff: worker %d does not read its messages: %d bytes are queued for it')
define('HANDOFF_ERR_MESSAGE_TOO_LARGE', 'handoff: a message of %d bytes is too large; the limit is %d')
define('HANDOFF_ERR_HANDLE_NOT_SUPPORTED', 'handoff: cannot send a handle to a worker, only a message')
define('HANDOFF_ERR_INVALID_ARGUMENT', '%s', TypeError)
define('HANDOFF_ERR_NOT_SUPPORTED', '%s')
define('HANDOFF_ERR_NOT_RECLUSTER', 'sticky-listen under handoff: activeWorkers must return the workers of @handoff/node/recluster; handoff can steer to no others')
define('HANDOFF_ERR_ALREADY_STARTED', 'This cluster has a master already')
define('HANDOFF_ERR_IN_WORKER', "ClusterMaster answers to no one!\n(don't run in a cluster worker script)")
// Node's own, which programs know from cluster.Worker.
define('ERR_IPC_CHANNEL_CLOSED', 'Channel closed')
define('ERR_UNKNOWN_SIGNAL', 'Unknown signal: %s', TypeError)
define('ERR_MISSING_ARGS', 'The "message" argument must be specified', TypeError)

// warn emits a process warning; its codes are HANDOFF_EVENTS_LOST and
// HANDOFF_MESSAGE_DROPPED.
function warn (code, message) { process.emitWarning(message, { type: 'HandoffWarning', code }) }

module.exports = { codes, warn }
