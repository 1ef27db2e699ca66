// Package fdstore implements both ends of the protocol between a keeper and its masters:
// the master's client, and the server in the keeper, which holds a duplicate of every
// descriptor that must survive a master. It is systemd's notify protocol with its fd
// store (sd_notify(3)), with a few extensions. Each message is a datagram of lines
// KEY=VALUE:
//
//	keeper → master   NOTIFY_SOCKET: where the keeper listens
//	master → keeper   X_GIVE=1 + socket           the store, please: each name with its descriptor;
//	                                              with FDNAME=n that one alone
//	keeper → master   n + fd, on that socket      a line each; an empty line is the end
//	master → keeper   READY=1                     it handles signals from now on
//	                  FDSTORE=1 FDNAME=n + fd     hold this; what had the name is closed
//	                  FDSTOREREMOVE=1 FDNAME=n    close it
//	                  BARRIER=1 + pipe            close this when all before it is handled
//	                  X_UPGRADE=1                 I start a candidate now; 0: I await none (said with
//	                                              READY=1, too; who never says it may have one always)
//	                  X_RUNS=0                    I shall say 1 when my loop has handled an event (with READY=1)
//	                  X_CANDIDATE=1               I may become the master (an upgrade)
//	                  STOPPING=1                  my exit is meant: exit with my code
//	                  X_LEAVING=1                 I make room for the candidate
//	                  X_TOOK=SIGUSR2,SIGHUP       I have taken note of these signals
//	                  X_BEGIN=1 … X_END=1         what is not stored again between the two is dropped
//	                  X_UP=1 and more             the rest is for the service manager above
//	                  X_PROBE=1                   nothing: whether you read
//
// The keeper only answers X_GIVE, so that a stopped master blocks it at most for that. A
// keeper that does not read is mute for its client, which continues without it, and sends
// everything again when it reads.
package fdstore

import (
	"slices"
	"strconv"
	"strings"
)

// The names in the store.
const (
	State   = "state"   // the record of the last master
	Program = "program" // the configuration of the next master
	Admin   = "admin"   // the listener of --admin
	// Master is the pidfd of a master, with which a later keeper ends it.
	Master = "master"
	// PassedPrefix begins the names of sockets that a service manager has passed.
	PassedPrefix = "passed-"
)

// What is held of a worker; see [WorkerName].
const (
	PID    = "pid"    // its pidfd
	Pair   = "pair"   // its channel
	Stderr = "stderr" // the read ends of its output
	Stdout = "stdout"
	Notify = "notify" // its notify socket
	Filter = "seat"   // the notification descriptor of its bind filter
	Calls  = "calls"  // its pending calls
	Bound  = "binder" // the pidfd of the process that has bound, if that is not the leader
)

// OfWorker lists what may be held of a worker.
func OfWorker() []string {
	return []string{PID, Pair, Stderr, Stdout, Notify, Filter, Calls, Bound}
}

// IsWorker tells whether a name is that of something of a worker.
func IsWorker(name, what string) bool {
	id, ok := strings.CutSuffix(strings.TrimPrefix(name, "w"), "-"+what)
	_, err := strconv.Atoi(id)
	return ok && err == nil && strings.HasPrefix(name, "w")
}

// OfAnyWorker tells whether a name is that of anything of a worker.
func OfAnyWorker(name string) bool {
	return slices.ContainsFunc(OfWorker(), func(what string) bool { return IsWorker(name, what) })
}

// WorkerName is the name of something of a worker.
func WorkerName(id int, what string) string { return "w" + strconv.Itoa(id) + "-" + what }
