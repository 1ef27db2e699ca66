package fdstore

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A server that has few descriptors left takes no more of them, but what replaces others:
// the record, above all.
func TestNoRoom(t *testing.T) {
	const first = 700 // where nobody else has any
	open := func() int {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, first)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	s := Server{MaxFiles: first + 3 + reserve}
	t.Cleanup(func() { // so that it can run again in this process
		for _, n := range slices.Clone(s.Held()) {
			s.Remove(n.Name)
		}
	})
	stored := 0
	for i := range 10 {
		if s.Handle(Parse(storeText(WorkerName(i, PID))), []int{open()}) == nil {
			stored++
		}
	}
	next := open()
	defer unix.Close(next)
	if stored != 3 || next != first+3 {
		t.Errorf("%d are stored, and the next descriptor is %d: want 3, and those that were refused closed (%d)", stored, next, first+3)
	}
	if err := s.Handle(Parse(storeText(WorkerName(0, PID))), []int{open()}); err != nil || len(s.Held()) != 3 {
		t.Errorf("another of the same name: %v, %d are held", err, len(s.Held()))
	}
}

// Another worker is started only if all that it will have has room.
func TestRoom(t *testing.T) {
	for _, c := range []struct {
		what           string
		limit, workers int
		of             []string
		want           bool
	}{
		{"the first", 64, 0, nil, true},
		{"Node, four and three", 64, 7, []string{PID, Pair, Stderr, Notify}, true},
		{"bind, three and two", 64, 5, []string{PID, Filter, Calls, Stderr, Notify}, true},
		{"bind, four and two", 64, 6, []string{PID, Filter, Calls, Stderr, Notify, Bound}, false},
		{"many", 65536, 1000, []string{PID, Filter, Calls, Stderr, Stdout, Notify, Bound}, true},
	} {
		held := map[string]bool{State: true, Program: true}
		for i := range c.workers {
			held[fmt.Sprintf("s%d", i)] = true
			for _, what := range c.of {
				held[WorkerName(i, what)] = true
			}
		}
		if err := room(c.limit, held, c.workers); (err == nil) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
