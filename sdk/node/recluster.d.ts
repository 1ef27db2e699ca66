import { EventEmitter } from 'events'
import { HandoffError } from './index'
import { Worker, Address } from 'cluster'

declare function recluster (file: string, options?: recluster.Options): recluster.Balancer
declare namespace recluster {
  interface Options {
    /** Number of workers; as many as there are CPUs. */
    workers?: number
    /** Seconds that a worker may take to finish; 30 (recluster: 1), in production 3600. */
    timeout?: number
    /** Least seconds between two starts of a worker that dies; 1. */
    respawn?: number
    /** Most seconds between them. */
    backoff?: number
    /** Seconds, or '90s', that a new worker may take to become ready, before a reload fails; 60. */
    readyTimeout?: number | string
    /** 'listening', 'started', or a message {cmd: 'ready'}. */
    readyWhen?: 'listening' | 'started' | 'ready' | string
    args?: string[]
    execArgv?: string[]
    log?: { respawns?: boolean }
    logger?: { log (...args: any[]): void }
  }
  interface ReclusterWorker extends Worker {
    readonly _rc_wid: number
    readonly _rc_isReplaced: boolean
  }
  interface ActiveWorkers { length: number, [slot: number]: ReclusterWorker | null }
  interface Balancer extends EventEmitter {
    run (): void
    /** Calls back when every new worker is ready and the old ones have exited; with an error when the new code does not become ready: the old workers continue. */
    reload (cb?: (err?: HandoffError) => void): void
    /** Kills all workers, and calls back when they have exited. */
    terminate (cb?: (err?: HandoffError) => void): void
    /** Forgets the workers: none is replaced any more, and there are no more events. */
    stop (): void
    workers (): ReclusterWorker[]
    activeWorkers (): ActiveWorkers
    on (event: 'message', listener: (worker: ReclusterWorker, message: any) => void): this
    on (event: 'listening', listener: (worker: ReclusterWorker, address: Address) => void): this
    on (event: 'ready', listener: (worker: ReclusterWorker, arg: any) => void): this
    on (event: 'online' | 'disconnect', listener: (worker: ReclusterWorker) => void): this
    on (event: 'exit', listener: (worker: ReclusterWorker, code: number | null, signal: string | null) => void): this
    on (event: 'error', listener: (err: HandoffError) => void): this
  }
}
export = recluster
