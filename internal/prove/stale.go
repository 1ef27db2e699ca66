package prove

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"handoff/internal/api"
	"handoff/internal/linux"
)

// staleTries is how many connections are checked after each reload.
const staleTries = 4

// stale makes a few connections and finds which process has each: one of an older
// generation is an error. A process has its generation in its environment, also if it is
// a descendant of the worker.
func (h *Handoff) stale(s api.Status) (wrong []error) {
	for range staleTries {
		c, err := net.DialTimeout("tcp", h.addr, time.Second)
		if err != nil {
			return wrong // the load counts it
		}
		port := c.LocalAddr().(*net.TCPAddr).Port
		generation := 0
		for late := time.Now().Add(200 * time.Millisecond); generation == 0 && time.Now().Before(late); {
			time.Sleep(5 * time.Millisecond)
			for s := range linux.TCPSockets() {
				if int(s.Remote) == port && s.Inode != 0 {
					generation = max(generation, generationOf(s.Inode))
				}
			}
		}
		c.Close()
		if generation > 0 && generation < s.Generation {
			wrong = append(wrong, fmt.Errorf("generation %d answered after generation %d was in service", generation, s.Generation))
		}
	}
	return wrong
}

// generationOf returns the newest generation of the processes that have a socket; 0: no
// process has it.
func generationOf(inode uint64) (generation int) {
	for _, pid := range linux.PIDs() {
		n, err := strconv.Atoi(linux.Lookup(linux.Environ(pid), "HANDOFF_GENERATION"))
		if err != nil || n <= generation {
			continue
		}
		for _, has := range linux.Sockets(pid) {
			if has == inode {
				generation = n
				break
			}
		}
	}
	return generation
}
