import { Worker } from 'cluster'
import { HandoffError } from './index'

declare function clusterMaster (config: string | clusterMaster.Config): void
declare namespace clusterMaster {
  interface Config {
    exec: string
    /** Number of workers; as many as there are CPUs. */
    size?: number
    env?: Record<string, string | undefined>
    args?: string[]
    argv?: string[]
    execArgv?: string[]
    /** The workers' output goes to worker.process.stdout and stderr instead; of what nobody reads the first 64 KiB. */
    silent?: boolean
    /** SIGHUP restarts, SIGINT and SIGTERM quit; true. */
    signals?: boolean
    onMessage?: (this: Worker, message: any) => void
    onmessage?: (this: Worker, message: any) => void
    /** Milliseconds that a new worker must live before the rest follows; 2000. */
    minRestartAge?: number
    /** Milliseconds that a worker may take to finish; 30000. */
    stopTimeout?: number
    /** Seconds, or '90s', that a new worker may take to listen, before a restart fails; 60. */
    readyTimeout?: number | string
    /** A unix path, a port of loopback, {address, port}, or null: none. */
    repl?: string | number | { address?: string, port: number } | null | false
  }
  function restart (cb?: (err?: HandoffError) => void): void
  function resize (n?: number, cb?: (err?: HandoffError) => void): void
  function resize (cb: (err?: HandoffError) => void): void
  function quit (cb?: () => void): void
  function quitHard (): void
}
export = clusterMaster
