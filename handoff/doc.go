// Package handoff holds listening sockets for programs that come and go.
//
// A [Group] is one TCP address. It owns a listening socket for each worker, all
// of them in the address's SO_REUSEPORT group, and a classic BPF program that
// names the sockets to which new connections go. Putting a generation into
// service, or taking one out, is one setsockopt; no socket is closed for it.
//
//	         SYN
//	          │
//	  ┌───────▼────────┐   program: random over {2,3}
//	  │ reuseport group│──────────────┐
//	  └────────────────┘              │
//	index  0       1       2       3  │
//	     parked  parked  worker  worker
//
// A socket whose worker is gone is parked: it stays open, so that the kernel's
// index order does not move and nothing queued at it is reset, and a later
// worker gets it.
//
// Nothing here is safe for concurrent use unless it says so: a Group has one
// owner. The kernel facts on which this rests are in DESIGN.md.
package handoff
