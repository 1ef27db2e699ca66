// Package sdnotify speaks systemd's notify protocol (sd_notify(3)): a process tells
// its supervisor, in a datagram of lines KEY=VALUE to the socket that NOTIFY_SOCKET
// names, what it does. handoff is both: a supervisor of its workers ([Listen],
// [Server], [Parse], [Limiter]), and a service of a service manager's ([Manager],
// [Send]). Workers in Go use it, too, so that it wants the standard library and x/sys
// alone.
//
// One word is handoff's own:
//
//	worker → handoff   X_DRAINING=1 + pipe   is the signal that I have got the order to drain?
//	handoff → worker   a byte                yes; the end of the pipe without one is a no
//
// The kernel attaches the sender's pid, and only the worker's own processes are
// believed. A sender that is gone before it could be looked at is not:
// systemd-notify and [SendAndWait] wait at a barrier until it was, the end of a pipe
// that the supervisor closes.
package sdnotify
