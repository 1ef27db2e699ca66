// Package handoff holds listening sockets for programs that are restarted: no connection
// is refused, reset or left waiting when one version of a server replaces another, or
// when one of its processes dies.
//
// A [Group] is one TCP address. It owns a listening socket for each worker, all of them
// in the address's SO_REUSEPORT group, and a classic BPF program that selects the sockets
// to which new connections go. One setsockopt puts a generation of workers into service,
// or takes it out; no socket is closed. This requires no privilege, and of the workers
// only that they accept from an inherited socket.
//
//	         SYN
//	          │
//	  ┌───────▼────────┐   program: random over {2,3}
//	  │ reuseport group│──────────────┐
//	  └────────────────┘              │
//	index  0       1       2       3  │
//	     parked  parked  worker  worker
//
// A socket whose worker has exited is parked: it stays open, so that the kernel's index
// order does not change and no queued connection is reset. Once nothing can reach it, a new
// socket takes its place, for a later worker: what a worker has set on the old one, or who
// else has a duplicate of it, ends with it.
//
// A change of generations is always the same:
//
//	next, err := group.Take(slot)          // a socket for each new worker, which accepts from it
//	err = group.Steer(all of next)         // new connections go to those
//	quiet := old.Quiet(now, grace)         // until nothing more can come to the old ones,
//	ok, again := quiet.Look(now)           //   their queues and their half-open handshakes included
//	old.Release()                          // the old worker ends; its socket is parked
//
// A [Watch] opens groups. It detects a stalled worker and steers new connections away
// from it, repairs a socket that a worker has changed, and reports connections that are
// queued at a parked socket. Its owner calls [Watch.Collect] from its own loop, or uses
// [Watch.Run].
//
// A [Probe] is a connection of the owner's to one socket, whether others are steered to it or
// not: a new worker can be asked for an answer before it serves.
//
// Ownership: sockets belong to their group, and groups to their watch; closing a watch
// closes them. Workers get duplicates (of [Socket.FD]). To continue in another process,
// pass it the descriptors and [Group.State]; it calls [Watch.Restore]. From then on only
// that process may use the group: steering relies on the recorded index order, so no
// other process may listen in the group.
//
// Nothing here is safe for concurrent use, except that [Watch.Wait] may run concurrently
// with the rest.
//
// If the kernel does not support such programs ([Group.Steerable]), its own hash over all
// sockets decides, and a slot's socket passes from one worker to the next.
//
// Linux only. The kernel behaviour that this relies on is described in docs/internals.
package handoff
