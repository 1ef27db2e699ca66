// Package unheld says of workers that they listen on a socket that they have not asked
// handoff for: under the node contract in a worker thread, in a child process or on a handle
// of their own, under activation by bind(2). Such a worker would never be ready, and a
// second one cannot have the address. Both are said, with the option that helps.
package unheld

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"handoff/internal/listener"
	"handoff/master/descendants"
	"handoff/master/listeners"
)

// Loop is what the master's loop knows of workers.
type Loop interface {
	// Waits reports whether a worker starts, and has no address yet.
	Waits(listeners.Worker) bool
	// Processes are those of a worker, as far as they are known.
	Processes(listeners.Worker) []int
	// Lacks says why a worker is not ready.
	Lacks(id listeners.Worker, what string)
	// Later has the loop call f; any goroutine may call it.
	Later(f func(Loop))
}

const (
	every   = 3 * time.Second
	timeout = time.Second // for the look
)

const hint = "on a socket that handoff does not hold (a worker thread, a child process, listen({fd}) or a handle of its own?): use --contract bind"

// Descriptor is what is to be said of a worker that serves on a descriptor of its own.
const Descriptor = "The program listens on a descriptor of its own (listen({fd})), which handoff does not hold: connections are refused while no worker has it. " +
	"Use --contract bind, or --listen ADDR, which gives it one (LISTEN_FDS)"

// Watch looks whether a worker listens by itself, again and again while it waits.
func Watch(loop Loop, id listeners.Worker, readyTimeout time.Duration) {
	time.AfterFunc(min(every, readyTimeout/10), func() {
		loop.Later(func(loop Loop) {
			if !loop.Waits(id) {
				return
			}
			pids := loop.Processes(id)
			go func() { // ends after timeout, or a bit later
				ports := listening(descendants.HoldingsOf(pids, timeout))
				loop.Later(func(loop Loop) {
					switch {
					case !loop.Waits(id):
					case len(ports) == 0:
						Watch(loop, id, readyTimeout)
					default:
						loop.Lacks(id, "listens on port "+strings.Join(ports, ", ")+" "+hint)
					}
				})
			}()
		})
	})
}

// listening are the ports on which processes listen.
func listening(holdings []descendants.Holding) (ports []string) {
	for _, h := range holdings {
		for _, port := range h.Listening {
			if text := fmt.Sprint(port); !slices.Contains(ports, text) {
				ports = append(ports, text)
			}
		}
	}
	return ports
}

// Worker is one whose processes may have an address.
type Worker struct {
	Slot      int
	Processes []int
}

// InUse is why a program that has ended in its start cannot listen, see [listener.Reason]:
// also if another worker of the service has the address.
func InUse(refused string, stderrTail []string, workers func() []Worker) string {
	why := listener.Reason(refused, stderrTail)
	port, ok := listener.Complaint(stderrTail)
	if why == "" || refused != "" || !ok || port == 0 {
		return why
	}
	all, _ := listener.On(port)
	for _, w := range workers() {
		if slices.ContainsFunc(all, func(p listener.Process) bool { return slices.Contains(w.Processes, p.PID) }) {
			return fmt.Sprintf("%s: it is the worker of slot %d, %s", why, w.Slot, hint)
		}
	}
	return why
}
