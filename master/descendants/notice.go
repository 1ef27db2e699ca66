package descendants

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Notice is something to report.
type Notice struct {
	Of        Worker
	Signal    unix.Signal // that they were sent; 0: they cannot be ended, or need not yet
	Processes []Process
	Reason    string
	Until     time.Time // they finish their connections until then, at the latest; else zero
	Listen    int       // so many of these have a listening socket, too
	Drained   bool      // their worker has drained: that socket was steered away from
}

// Finish says who finishes connections; steerable: nothing comes to a socket that was
// steered away from.
func (n Notice) Finish(steerable bool) string {
	text := "Processes left by a worker finish their connections: " + n.who()
	switch {
	case n.Listen > 0 && n.Drained && steerable:
		text += fmt.Sprintf("; %d of them still have a listening socket: no new connections come to it", n.Listen)
	case n.Listen > 0:
		text += fmt.Sprintf("; %d of them still have a listening socket, which others have too: they may take new connections until then", n.Listen)
	}
	return text
}

func (n Notice) who() string {
	var names []string
	for _, p := range n.Processes[:min(len(n.Processes), 10)] {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}

func (n Notice) String() string {
	who := n.who()
	if n.Signal == 0 {
		return fmt.Sprintf("Cannot end a process that a worker has started: %s: %s; end it by hand", who, n.Reason)
	}
	return fmt.Sprintf("Sending %s to processes left by a worker: %s: %s", linux.SignalName(n.Signal), who, n.Reason)
}
