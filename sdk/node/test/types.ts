// Compiled, not run. What is marked with @ts-expect-error must be an error.
import sdk = require('@handoff/node')
import recluster = require('@handoff/node/recluster')
import clusterMaster = require('@handoff/node/cluster-master')
import dutchMaster = require('@handoff/node/dutch-master')
import RackMan = require('@handoff/node/rackman')
import sticky = require('@handoff/node/sticky-listen')
import '@handoff/node/preload'
import http = require('http')

const slot: number = sdk.slot
const told: boolean = sdk.ready()
const takeOut: () => boolean = sdk.onDrain(async () => { await Promise.resolve(slot) }, { timeout: 1000 })
takeOut()
sdk.reportRequests(5)
// @ts-expect-error
sdk.reportRequests('five')
// @ts-expect-error
sdk.slot = 3
// @ts-expect-error
sdk.onDrain('not a function')

const b = recluster('server.js', { workers: 4, timeout: 30, readyWhen: 'ready', args: ['a'], log: { respawns: false } })
b.on('exit', (worker, code, signal) => { const n: number | null = code; const s: string | null = signal; worker.send({ n, s }); worker.kill('SIGTERM') })
b.on('listening', (worker, address) => { const port: number = address.port; const wid: number = worker._rc_wid; return [port, wid] })
b.reload((err) => { if (err) throw err })
b.terminate()
const pids: (number | undefined)[] = b.workers().map((w) => w.process.pid)
const length: number = b.activeWorkers().length
// @ts-expect-error
recluster({ workers: 2 })
// @ts-expect-error
recluster('server.js', { workers: 'two' })

clusterMaster('server.js')
clusterMaster({ exec: 'server.js', size: 2, repl: { port: 3001 }, onMessage (m) { this.send(m) } })
clusterMaster.restart((err) => { const e: Error | undefined = err; return e })
clusterMaster.restart((err) => err && err.code === 'HANDOFF_ERR_REFUSED' && err.refusal)
const code: sdk.HandoffErrorCode = 'HANDOFF_ERR_RELOAD_FAILED'
// @ts-expect-error
const noCode: sdk.HandoffErrorCode = 'HANDOFF_ERR_NONE'
clusterMaster.resize(3, () => {})
clusterMaster.resize(() => {})
clusterMaster.quit()
// @ts-expect-error
clusterMaster({ size: 2 })

dutchMaster({ worker: 'server.js', numWorkers: () => 3, restartSignal: 'SIGHUP' })
dutchMaster.start({ worker: 'server.js' })
// @ts-expect-error
dutchMaster({ numWorkers: 2 })

dutchMaster({ worker: 'server.js', readyTimeout: '90s' })

const rack = new RackMan('/srv/web', 'v12')
rack.on('modified', (file, change) => { const c: 'created' | 'changed' | 'removed' = change; return [file, c] })
rack.on('workerCrashed', (manager, worker) => { const port: number = manager.port; return [port, manager.status === 'Offline', worker.process.pid] })
rack.restartWorker(3000)
rack.reload((err) => err && err.message)
rack.on('error', (err) => err.code === 'HANDOFF_ERR_CONFIG')
const deployed: Promise<string> = new RackMan.Admin('/srv/web').deploy('.', 'v13', { force: true })
// @ts-expect-error
new RackMan()
// @ts-expect-error
rack.restartWorker()

const balancer = sticky.createBalancer({ activeWorkers: b.activeWorkers })
balancer.listen(8080, () => balancer.address()?.port)
const server: http.Server = sticky.listen(http.createServer())
// @ts-expect-error
sticky.createBalancer()
export { code, noCode, deployed, told, pids, length, server }
