// Package handoff holds listening sockets for programs that come and go: no connection
// is refused, reset or left waiting when one version of a server follows another, or
// when one of its processes dies.
//
// A [Group] is one TCP address. It owns a listening socket for each worker, all
// of them in the address's SO_REUSEPORT group, and a classic BPF program that
// names the sockets to which new connections go. Putting a generation of workers into
// service, or taking one out, is one setsockopt; no socket is closed for it. None of
// it needs a privilege, or anything of the workers but that they accept from a socket
// that they are given.
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
// A change of generations is always this:
//
//	next, err := group.Take(slot)          // a socket for each new worker, which accepts from it
//	err = group.Steer(all of next)         // new connections go to those
//	quiet := old.Quiet(now, grace)         // until nothing more can come to the old ones,
//	ok, again := quiet.Look(now)           //   their queues and their half-open handshakes included
//	old.Release()                          // the old worker ends; its socket is parked
//
// A [Watch] is where groups are opened. It finds out when a worker stalls, and steers
// around it; when one does to the socket what it should not do, and repairs that; and
// when a connection waits where nobody accepts. Its owner calls [Watch.Collect], from a
// loop of its own, or has [Watch.Run] do so.
//
// Who owns what: sockets belong to their group, and groups to their watch; closing a
// watch closes them. Workers get duplicates (of [Socket.FD]). To go on in another
// process, pass that one the descriptors, and [Group.State]; it calls [Watch.Restore].
// Whoever restores must be the only one from then on: the record of the kernel's order
// is what makes steering right, so that nobody else may listen in the group.
//
// Nothing here is safe for concurrent use, but [Watch.Wait] beside the rest.
//
// Where the kernel refuses such programs ([Group.Steerable]), its own hash over all
// sockets decides, and a slot's socket goes from one worker to the next.
//
// Linux only. The kernel facts on which this rests are in docs/internals.
package handoff
