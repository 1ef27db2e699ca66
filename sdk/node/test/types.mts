// As types.ts, for a program of ES modules.
import sdk, { ready, slot, onDrain, type HandoffError } from '@handoff/node'
import recluster from '@handoff/node/recluster'
import clusterMaster from '@handoff/node/cluster-master'
import { start } from '@handoff/node/dutch-master'
import RackMan from '@handoff/node/rackman'
import { createBalancer, listen } from '@handoff/node/sticky-listen'
import '@handoff/node/preload'
import { createServer } from 'http'

const told: boolean = ready()
const same: number = sdk.slot + slot
onDrain(() => {})
const b = recluster('server.js', { workers: 2, readyTimeout: 1 })
b.run()
clusterMaster({ exec: 'server.js', readyTimeout: '1s' })
start({ worker: 'server.js' })
const rack: RackMan = new RackMan('/srv/web', true)
rack.start()
createBalancer({ activeWorkers: () => b.activeWorkers() }).listen(8080)
listen(createServer())
// @ts-expect-error
ready('now')
// @ts-expect-error
recluster('server.js', { readyTimeout: true })
const reloaded = (err?: HandoffError): boolean => err?.code === 'HANDOFF_ERR_RELOAD_FAILED'
b.reload(reloaded)
export { told, same }
