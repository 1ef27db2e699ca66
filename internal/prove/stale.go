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
// a descendant of the worker; the status has that of one which has overwritten it.
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
			for tcp := range linux.TCPSockets() {
				if int(tcp.Remote) == port && tcp.Inode != 0 {
					generation = max(generation, generationOf(tcp.Inode, s.Workers))
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
func generationOf(inode uint64, workers []api.WorkerStatus) (generation int) {
	all := map[int]linux.Stat{}
	for p := range linux.Processes() {
		all[p.PID] = p
	}
	for pid := range all {
		n, err := strconv.Atoi(linux.Lookup(linux.Environ(pid), "HANDOFF_GENERATION"))
		if err != nil { // it may have overwritten its environment (setproctitle)
			n = generationBelow(pid, all, workers)
		}
		if n <= generation {
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

// generationBelow is the generation of the worker that a process is, comes from, or is in
// the process group of; 0: of none.
func generationBelow(pid int, all map[int]linux.Stat, workers []api.WorkerStatus) int {
	of := func(pid int) int {
		for _, w := range workers {
			if w.PID == pid {
				return w.Generation
			}
		}
		return 0
	}
	if n := of(all[pid].Group); n > 0 {
		return n
	}
	for range 64 {
		p, there := all[pid]
		if n := of(pid); n > 0 || !there {
			return n
		}
		pid = p.Parent
	}
	return 0
}
