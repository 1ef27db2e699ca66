package cmsg

import (
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/lingertest"
)

// Who closes is not kept waiting; what comes after is closed after it.
func TestCloser(t *testing.T) {
	var c Closer
	slow, undo := lingertest.Socket(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	began := time.Now()
	c.CloseAll([]int{slow, fd})
	c.Stop()
	c.Stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("closing has taken %v", took)
	}
	r.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := r.Read(make([]byte, 1)); err == io.EOF {
		t.Error("the second is closed before the first: nothing lingers")
	}
	undo()
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the second is not closed: %v", err)
	}
}
