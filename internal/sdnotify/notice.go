package sdnotify

import (
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Notice is the part of a worker's notifications that its supervisor handles.
type Notice struct {
	Ready    bool          // READY=1
	Stopping bool          // STOPPING=1: it asks to be replaced
	Alive    bool          // WATCHDOG=1
	Hung     bool          // WATCHDOG=trigger
	Extend   time.Duration // EXTEND_TIMEOUT_USEC, an hour at most; 0: not set
	Requests int           // X_REQUESTS, served since its start; 0: not set
	Stores   bool          // FDSTORE=1: there is no store for workers
	State    *State        // if it has changed
}

// State is a worker's own status, for people.
type State struct {
	Status    string // STATUS, of printable characters and maxStatus bytes at most
	Reloading bool   // RELOADING=1, until READY=1
}

// Parse parses assignments, one per line. It ignores those that do not apply to this kind
// of supervisor (MAINPID, FDNAME, ERRNO…). before is the worker's previous state.
func Parse(text string, before State) Notice {
	var n Notice
	after := before
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			n.Ready = n.Ready || value == "1"
			after.Reloading = after.Reloading && value != "1"
		case "RELOADING":
			after.Reloading = after.Reloading || value == "1"
		case "WATCHDOG":
			n.Alive = n.Alive || value == "1"
			n.Hung = n.Hung || value == "trigger"
		case "EXTEND_TIMEOUT_USEC":
			if usec, err := strconv.ParseUint(value, 10, 63); err == nil {
				n.Extend = time.Duration(min(usec, uint64(time.Hour/time.Microsecond))) * time.Microsecond
			}
		case "X_REQUESTS":
			if requests, err := strconv.ParseInt(value, 10, 63); err == nil && requests > 0 {
				n.Requests = int(requests)
			}
		case "FDSTORE":
			n.Stores = n.Stores || value == "1"
		case "STOPPING":
			n.Stopping = n.Stopping || value == "1"
		case "STATUS":
			after.Status = Printable(value)
		}
	}
	if after != before {
		n.State = &after
	}
	return n
}

// maxStatus is how much of a worker's status is kept, in bytes.
const maxStatus = 200

// Printable makes a text fit for one line of a log or a table: at most 200 bytes, with a
// ? for each unprintable character.
func Printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxStatus)], "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
