declare function start (options: start.Options): void
declare namespace start {
  interface Logger {
    info (...args: any[]): void
    warn (...args: any[]): void
    debug (...args: any[]): void
    child? (fields: object): Logger
  }
  interface Options {
    worker: string
    /** Number of workers, or what returns it; 2. */
    numWorkers?: number | string | (() => number | string)
    beforeFork?: () => void
    logger?: Logger
    workerEnvironment?: Record<string, string | undefined>
    /** Seconds, or '90s', that a new worker may take to listen, before a restart fails; 60. */
    readyTimeout?: number | string
    /** 'SIGUSR2'. */
    restartSignal?: NodeJS.Signals
  }
  function start (options: Options): void
}
export = start
