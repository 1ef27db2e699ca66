/** Whether handoff runs this process. Without it the functions below do nothing. */
export const isHandoff: boolean
/** The worker's slot, from 0; 0 without handoff. */
export const slot: number
/** Counts the reloads, from 1; 0 without handoff. */
export const generation: number
/** Reports that the worker is warm, where handoff waits for it (`--ready-when ready`). Returns whether handoff was told. */
export function ready (): boolean
/**
 * Has `fn` called when the worker is to finish. What it returns is awaited before the worker exits, for `timeout`
 * ms at most (20000), and no longer than handoff's `--drain-timeout`. Returns a function that removes it.
 */
export function onDrain (fn: () => unknown | Promise<unknown>, options?: { timeout?: number }): () => boolean
/** Asks for a replacement; when it serves, this worker drains. Returns whether handoff was told. */
export function requestRestart (): boolean
/** Reports how many requests this worker has served since its start, for `--max-requests`. Node's own http servers are counted without it. */
export function reportRequests (n: number): boolean

/** The codes of errors; README.md has a table. Errors of Node's own keep Node's codes. */
export type HandoffErrorCode =
  | 'HANDOFF_ERR_BINARY_NOT_FOUND'
  | 'HANDOFF_ERR_BINARY_NOT_EXECUTABLE'
  | 'HANDOFF_ERR_EXITED'
  | 'HANDOFF_ERR_KILLED'
  | 'HANDOFF_ERR_NOT_RUNNING'
  | 'HANDOFF_ERR_ENDED'
  | 'HANDOFF_ERR_NO_RESPONSE'
  | 'HANDOFF_ERR_REFUSED'
  | 'HANDOFF_ERR_RELOAD_FAILED'
  | 'HANDOFF_ERR_CONFIG'
  | 'HANDOFF_ERR_COMMAND_FAILED'
  | 'HANDOFF_ERR_VERSION_NOT_FOUND'
  | 'HANDOFF_ERR_WORKER_NOT_FOUND'
  | 'HANDOFF_ERR_WORKER_BUSY'
  | 'HANDOFF_ERR_MESSAGE_TOO_LARGE'
  | 'HANDOFF_ERR_HANDLE_NOT_SUPPORTED'
  | 'HANDOFF_ERR_INVALID_ARGUMENT'
  | 'HANDOFF_ERR_NOT_SUPPORTED'
  | 'HANDOFF_ERR_NOT_RECLUSTER'
  | 'HANDOFF_ERR_ALREADY_STARTED'
  | 'HANDOFF_ERR_IN_WORKER'

/** An error of this package, or of the system (ENOENT, ERR_IPC_CHANNEL_CLOSED). */
export interface HandoffError extends Error {
  code: HandoffErrorCode | (string & {})
  /** Of HANDOFF_ERR_REFUSED: the code of the control API. */
  refusal?: string
}
