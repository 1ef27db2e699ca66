import { EventEmitter } from 'events'
import { Worker } from 'cluster'
import { HandoffError } from './index'

declare class RackMan extends EventEmitter {
  /**
   * `version`: true, the live one of a deployment; a string, that one for good; false, the folder itself. By default
   * the folder itself, or the live version if the folder has only versions.
   */
  constructor (folder: string, version?: boolean | string)
  start (): void
  stop (cb?: () => void): void
  reload (cb?: (err?: HandoffError) => void): void
  /** Replaces the worker of a port. */
  restartWorker (port: number): void
  /** Does nothing, like the original. */
  removeWatch (glob: string): void
  /** @deprecated Throws: edit .rackman.json instead. */
  addWorker (port: number): never
  /** @deprecated Throws: edit .rackman.json instead. */
  addAndStartWorker (port: number): never
  /** @deprecated Throws: edit .rackman.json instead. */
  removeWorker (port: number): never
  /** @deprecated Throws: edit .rackman.json instead. */
  addWatch (glob: string): never
  /** @deprecated Throws: edit .rackman.json instead. */
  onNewConfig (config: object): never
  readonly managers: RackMan.Manager[]
  on (event: 'error', listener: (err: HandoffError) => void): this
  on (event: 'reloading', listener: () => void): this
  on (event: 'modified', listener: (file: string, change: 'created' | 'changed' | 'removed') => void): this
  on (event: 'workerStarted' | 'workerShutdown' | 'workerKilling' | 'workerCrashed', listener: (manager: RackMan.Manager, worker: Worker) => void): this
}
declare namespace RackMan {
  interface Manager { port: number, active: boolean, worker: Worker | null, readonly status: 'Offline' | 'Online' | 'Listening' | 'Closed' }
  class Admin {
    constructor (folder: string)
    setup (options?: { resources?: string }): Promise<string[]>
    register (version: string): Promise<string[]>
    deploy (source: string, version?: string, options?: { force?: boolean }): Promise<string>
    checkout (version: string): Promise<string>
    rollback (steps?: number): Promise<string>
    clean (version?: string): Promise<string[]>
    head (): Promise<string | undefined>
    list (): Promise<string[]>
  }
}
export = RackMan
