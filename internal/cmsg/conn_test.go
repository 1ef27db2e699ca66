package cmsg

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open counts this process's descriptors.
func open(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDescriptorsThroughAPair(t *testing.T) {
	before := open(t)
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	peer, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Write([]byte("take"), int(r.Fd()), int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	buf := make([]byte, 16)
	n, fds, err := peer.Read(buf)
	if err != nil || string(buf[:n]) != "take" || len(fds) != 2 {
		t.Fatalf("%q, descriptors %v, %v", buf[:n], fds, err)
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would be inherited (%v)", fd, err)
		}
	}
	unix.Write(fds[1], []byte("through"))
	if n, err := unix.Read(fds[0], buf); err != nil || string(buf[:n]) != "through" {
		t.Errorf("%q through the passed pipe, %v", buf[:n], err)
	}
	CloseAll(fds)
	ours.Close()
	if n, fds, err := peer.Read(buf); n != 0 || fds != nil || err != nil {
		t.Errorf("at the end: %d, %v, %v", n, fds, err)
	}
	peer.Close()
	if after := open(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// What does not fit in the socket's buffer is written as the other end reads.
func TestLongWrite(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	done := make(chan error, 1)
	go func() { // ends with the write
		err := ours.Write(sent)
		ours.Close()
		done <- err
	}()
	got, err := io.ReadAll(theirs)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDeadlinesAndClose(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours.SetReadDeadline(time.Unix(1, 0))
	if _, _, err := ours.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	ours.SetWriteDeadline(time.Unix(1, 0))
	if err := ours.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write after the deadline: %v", err)
	}
	ours.SetReadDeadline(time.Time{})
	if _, err := ours.ReceiveNow(make([]byte, 1)); err != unix.EAGAIN {
		t.Errorf("nothing is there: %v", err)
	}
	done := make(chan error, 1)
	go func() { // ends with Close
		_, _, err := ours.Read(make([]byte, 1))
		done <- err
	}()
	ours.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := ours.ReceiveNow(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed before: %v", err)
	}
	if err := ours.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a write, closed before: %v", err)
	}
	if fd := ours.FD(); fd != 0 {
		t.Errorf("descriptor %d, closed", fd)
	}
}

// Datagrams come with who has sent them, and what is too long is told.
func TestDatagrams(t *testing.T) {
	for _, name := range []string{"@handoff-test/" + word(), filepath.Join(t.TempDir(), "s")} {
		l, err := Listen(name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := Dial(name)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("READY=1"), int(w.Fd()))
		c.Write([]byte("0123456789"))
		w.Close()
		buf := make([]byte, 8)
		m, err := l.Receive(buf)
		if err != nil || string(buf[:m.N]) != "READY=1" || len(m.FDs) != 1 || m.Truncated ||
			m.Sender == nil || int(m.Sender.Pid) != os.Getpid() || int(m.Sender.Uid) != os.Getuid() {
			t.Errorf("%s: %+v, sender %+v, %v", name, m, m.Sender, err)
		}
		CloseAll(m.FDs)
		if _, err := r.Read(buf); err != io.EOF {
			t.Errorf("the pipe is still open: %v", err)
		}
		r.Close()
		if m, err := l.ReceiveNow(buf); err != nil || !m.Truncated {
			t.Errorf("%s: %+v, %v, want that it is truncated", name, m, err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	if _, err := Dial("@handoff-test/" + word()); err != unix.ECONNREFUSED {
		t.Error(err)
	}
	if _, err := Dial(""); err == nil {
		t.Error("no name, and no error")
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "missing", "s")); err != unix.ENOENT {
		t.Error(err)
	}
	if _, err := Open(-1); err != unix.EBADF {
		t.Error(err)
	}
}

func word() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Whatever a control message is, nothing but descriptors and credentials is taken
// from it.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{})
	f.Add(unix.UnixCredentials(&unix.Ucred{Pid: 1}))
	f.Fuzz(func(t *testing.T, oob []byte) { unpack(oob) }) // descriptors are only numbers here
}
