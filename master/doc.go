// Package master supervises workers: one event loop that owns all state.
//
//	signals ─┐
//	channels ├──► events ──► loop ──► fleet.Step ──► actions: spawn, steer,
//	pidfds   │                │                       quiesce, drain, signal
//	watch   ─┘                └──► addresses: which worker holds which socket
//
// Everything else is a goroutine that waits for one thing and posts what it
// saw. Nothing in this package is shared between goroutines but channels.
package master
