// Package sdnotify implements systemd's notify protocol (sd_notify(3)): a process reports
// its state to its supervisor, in a datagram of lines KEY=VALUE to the socket in
// NOTIFY_SOCKET. handoff has both roles: a supervisor of its workers ([Listen], [Server],
// [Parse], [Limiter]), and a service of a service manager ([Manager], [Send]). Workers in
// Go use it, too, so it imports only the standard library and x/sys.
//
// One key is handoff's own:
//
//	worker → handoff   X_DRAINING=1 + pipe   is the signal that I have got the order to drain?
//	handoff → worker   a byte                yes; the end of the pipe without one is a no
//
// The kernel attaches the sender's pid, and only the worker's own processes are accepted.
// A sender that exits before it is checked is not: systemd-notify and [SendAndWait] wait
// at a barrier until it was, a pipe that the supervisor closes.
package sdnotify
