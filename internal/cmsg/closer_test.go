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

// What takes long is overtaken, each of several times.
func TestCloserOvertakes(t *testing.T) {
	var c Closer
	for range 3 {
		slow, undo := lingertest.Socket(t)
		defer undo()
		c.Close(slow)
	}
	awaitClosed(t, c.Close)
	c.Stop()
}

// awaitClosed gives a descriptor away, and waits until it is closed.
func awaitClosed(t *testing.T, give func(fd int)) {
	t.Helper()
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
	give(fd)
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it is not closed: %v", err)
	}
}

// What a stranger has sent does not wait for his SO_LINGER: of more than may wait, none
// keeps anybody waiting.
func TestForeign(t *testing.T) {
	slow, undo := lingertest.Socket(t)
	defer undo()
	began := time.Now()
	CloseForeign([]int{slow, -1})
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("closing has taken %v", took)
	}
	c := Closer{Foreign: true, Waits: true}
	for range 4 * maxWait {
		fd, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.Close(fd)
	}
	awaitClosed(t, c.Close)
	c.Stop()
}
