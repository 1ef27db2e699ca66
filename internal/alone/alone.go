// Package alone recognises programs that refuse to run beside another process of theirs, by
// what they write when they do.
package alone

import (
	"regexp"
	"slices"

	"handoff/internal/listener"
)

// says are what programs write that find another one, in one line:
//
//	httpd (pid 4711) already running
//	Error: Already running on PID 4711 (or pid file '/run/web.pid' is stale)
//	FATAL:  lock file "postmaster.pid" already exists
//	IO error: lock /data/LOCK: Resource temporarily unavailable
//	Error: Lock file is already being held
const says = `(?i)` +
	`\balready running\b` +
	`|\b(?:pid[ -]?file|lock[ -]?file|file lock)\b.*(?:already|exists|is held|could not be acquired|is locked)` +
	`|\block(?:ed|ing)?\b.*(?:resource temporarily unavailable|\bEAGAIN\b|\bEWOULDBLOCK\b|error: 11\b)` +
	`|\banother [^.]*?(?:instance|process|postmaster|server|node)\b.*\b(?:running|is using|using|listen)` +
	`|(?:cannot|could not|unable to|failed to) (?:acquire|obtain|get|take) [^.]*?\block` +
	`|\balready used by a different\b|\bELOCKED\b`

// wouldBlock and locks are what two lines say, of a program that prints where it failed:
//
//	fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
//	BlockingIOError: [Errno 11] Resource temporarily unavailable
const (
	wouldBlock = `(?i)\bresource temporarily unavailable\b`
	locks      = `\bf?lockf?\(|\bflock\b|\bLOCK_(?:EX|NB)\b|\.lock\b`
)

// Hint says, at the end of the reason why a start has failed, which option lets a program run
// that does not run beside another one; "": it does not seem to be that. ours tells which
// processes are the service's own; slots is the number of its workers.
func Hint(stderr []string, ours func(pid int) bool, slots int) string {
	switch {
	case refuses(stderr):
	case inUse(stderr, ours):
	default:
		return ""
	}
	hint := "; it does not run beside another one: --overlap none ends the old worker before the new one starts"
	if slots > 1 {
		hint += " (with -n 1, if all workers share what only one can have)"
	}
	return hint
}

func refuses(stderr []string) bool {
	any := func(pattern string) bool {
		return slices.ContainsFunc(stderr, regexp.MustCompile(pattern).MatchString)
	}
	return any(says) || any(wouldBlock) && any(locks)
}

// inUse tells whether another worker has the address that a program complains of.
func inUse(stderr []string, ours func(pid int) bool) bool {
	port, ok := listener.Complaint(stderr)
	if !ok || port == 0 {
		return false
	}
	all, _ := listener.On(port)
	return slices.ContainsFunc(all, func(p listener.Process) bool { return ours(p.PID) })
}
