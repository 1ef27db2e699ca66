/** Whether handoff runs this process. Without it the functions below do nothing. */
export const isHandoff: boolean
/** The worker's seat, from 0; 0 without handoff. */
export const slot: number
/** Counts the reloads, from 1; 0 without handoff. */
export const generation: number
/** Says that the worker is warm, where handoff waits for it (`--ready-when ready`). Returns whether somebody was told. */
export function ready (): boolean
/**
 * Has `fn` called when the worker is to finish. What it returns is awaited before the worker exits, for `timeout`
 * ms at most (20000), and no longer than handoff's `--drain-timeout`. Returns what takes it out again.
 */
export function onDrain (fn: () => unknown | Promise<unknown>, options?: { timeout?: number }): () => boolean
/** Asks for a replacement; when that serves, this worker drains. Returns whether somebody was told. */
export function requestRestart (): boolean
/** Says how many requests this worker has served since its start, for `--max-requests`. Node's own http servers are counted without it. */
export function reportRequests (n: number): boolean
