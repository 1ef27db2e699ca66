package fdstore

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A keeper whose table of descriptors is full can start no master, and nothing can be done
// about it any more: the service would be without one for good. So it keeps a reserve, and a
// master starts no worker whose descriptors would not find room.
const (
	// reserve is what a keeper needs to start a master and to hear it: a pipe, a pidfd,
	// a socket to give the store by, a record beside the one that it replaces.
	reserve = 6
	// base is what it has besides what it holds; a master needs as many.
	base = 10
)

// limit is how many descriptors a process may have (RLIMIT_NOFILE), which keeper and masters
// have in common.
func limit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return maxHeld
	}
	return int(min(l.Cur, maxHeld))
}

// room is Room of a Client that holds these names. A worker that has just started has not
// all that it will have: it is taken for as large as the largest, and has a socket.
func room(limit int, held map[string]bool, workers int) error {
	of, other, most := map[string]int{}, 0, 4
	for name := range held {
		worker, what, ok := strings.Cut(name, "-")
		switch {
		case ok && IsWorker(name, what):
			of[worker]++
			most = max(most, of[worker])
		case !strings.HasPrefix(name, "s") || ok || name == State: // no socket
			other++
		}
	}
	need := other + (workers+1)*(most+1) + base + reserve
	if need <= limit {
		return nil
	}
	return fmt.Errorf("too many open files: with %d workers and another one handoff needs %d, and may have %d (raise the limit: ulimit -n 65536, or LimitNOFILE=65536 in the unit; a reload by --strategy slot has fewer workers at once)", workers, need, limit)
}

// full reports whether a descriptor that was just received leaves less than the reserve:
// the kernel gives the lowest number that is free.
func (s *Server) full(fd int) bool {
	most := s.MaxFiles
	if most == 0 {
		most = limit()
	}
	return fd >= most-reserve
}
