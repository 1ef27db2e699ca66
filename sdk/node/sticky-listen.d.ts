import { EventEmitter } from 'events'
import { Server } from 'net'

export interface Balancer extends EventEmitter {
  listen (port: number, host?: string, cb?: () => void): this
  listen (port: number, cb?: () => void): this
  listen (options: { port?: number, host?: string, path?: string }, cb?: () => void): this
  close (cb?: () => void): this
  address (): { address: string, port: number, family: string } | null
}
export interface Options {
  /** What returns the active workers of @handoff/node/recluster. It is called by listen. */
  activeWorkers: () => { length: number, [slot: number]: any }
  retryDelay?: number
  maxRetries?: number
}
/** Chooses a worker by the client's address, in the kernel. A choice by a header is an error. */
export function createBalancer (options: Options): Balancer
/** In a worker: the server listens where the balancer says. */
export function listen<T extends Server> (server: T): T
