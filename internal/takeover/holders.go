package takeover

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// holders tells which processes still have a connection. It belongs to one goroutine.
type holders struct {
	roots []int       // of the worker
	dirs  map[int]int // by pid, /proc/PID/fd: of that process alone, also when its pid is in use again; -1: it has gone
	gone  map[int]bool
	buf   [64]byte
}

func newHolders(roots []int) *holders {
	return &holders{roots: roots, dirs: map[int]int{}, gone: map[int]bool{}}
}

func (h *holders) close() {
	for _, fd := range h.dirs {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// begin begins another look: which processes have ended?
func (h *holders) begin() {
	for pid := range h.dirs {
		h.gone[pid] = h.gone[pid] || ended(pid)
	}
}

// ended reports whether a process has no descriptors any more. One that nobody has waited
// for may not be looked at, and looks like one that has.
func ended(pid int) bool {
	s, err := linux.ReadStat(pid)
	return err != nil || s.State == 'Z' || s.State == 'X'
}

// have reports whether one of those that had a connection still does. A process that may
// not be looked at counts as one that does.
func (h *holders) have(c *connHeld) bool {
	for _, at := range c.Holders {
		dir, known := h.dirs[at.PID]
		if !known {
			var err error
			if dir, err = unix.Open("/proc/"+strconv.Itoa(at.PID)+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
				dir = -1
				h.gone[at.PID] = ended(at.PID)
			}
			h.dirs[at.PID] = dir
		}
		if h.gone[at.PID] {
			continue
		}
		if dir < 0 {
			return true
		}
		n, err := unix.Readlinkat(dir, strconv.Itoa(at.FD), h.buf[:])
		switch {
		case err == nil && string(h.buf[:n]) == c.name:
			return true
		case err == unix.EACCES || err == unix.EPERM:
			return true
		}
	}
	return false
}

// maxLooks bounds the descriptors that are looked at when somebody seems to have closed a
// connection.
const maxLooks = 1 << 20

// elsewhere reports which of these no process of the worker has any more: it may have
// given one to another, or to another number.
func (h *holders) elsewhere(seem []*connHeld) (closed []*connHeld) {
	inodes := make([]uint64, len(seem))
	for i, c := range seem {
		inodes[i] = c.Inode
	}
	var alive []int
	for _, pid := range h.roots {
		if !ended(pid) {
			alive = append(alive, pid)
		}
	}
	for pid := range h.dirs {
		if !h.gone[pid] && !ended(pid) { // it may have lost its parent
			alive = append(alive, pid)
		}
	}
	open := linux.OpenSockets(alive, inodes, maxLooks)
	for _, c := range seem {
		if !open[c.Inode] {
			closed = append(closed, c)
		}
	}
	return closed
}

// pace is how long to wait for the next look after one that took so long: soon where a
// filter is on, and a small part of a processor always.
func pace(took time.Duration, soon bool) time.Duration {
	if soon {
		return max(5*time.Millisecond, 3*took)
	}
	return min(max(15*time.Millisecond, 10*took), 500*time.Millisecond)
}

func socketName(inode uint64) string { return "socket:[" + strconv.FormatUint(inode, 10) + "]" }
