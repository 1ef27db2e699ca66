// Package master supervises workers: one event loop that owns all state.
//
//	signals ─┐
//	channels ├──► events ──► loop ──► fleet.Step ──► actions: spawn, steer,
//	pidfds   │                │                       quiesce, drain, signal
//	watch   ─┘                └──► addresses: which worker holds which socket
//
// Everything else is a goroutine that waits for one thing and posts an event. Goroutines
// of this package share only channels.
package master
