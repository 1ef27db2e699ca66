package handoff

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The owner dies when it has replaced a socket, and has written down last what it had to
// while it did: the next one steers rightly from that.
func TestOwnerDiesAsASocketIsReplaced(t *testing.T) {
	w, g, old := optionsGroup(t, "127.0.0.1:0", 3)
	var state State
	kept := map[uint64]int{}
	store := func() {
		for _, s := range g.Sockets() {
			if _, ok := kept[s.Inode()]; !ok {
				kept[s.Inode()], _ = unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 3)
			}
		}
	}
	record := func(*Group) {
		store()
		state = g.State()
	}
	next(t, g, 3)
	record(g)
	w.Grown = record
	old[1].quiet = true
	old[1].Release()
	if !old[1].Closed() {
		t.Fatal("it is not replaced")
	}
	store() // also without the record that goes with it
	for _, s := range g.Sockets() {
		unix.Close(s.fd) // as the owner's death does
	}
	again, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r, err := again.Restore(state, func(inode uint64) int {
		if fd, ok := kept[inode]; ok {
			return fd
		}
		return -1
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, s := range r.Sockets() {
		if err := r.Steer([]*Socket{s}); err != nil {
			t.Fatal(err)
		}
		goesTo(t, r, 5, s)
	}
}
