package fdstore

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Copies are of what is open, and are open by themselves.
func TestCopies(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var c Copies
	c.Add("fd", int(w.Fd()))
	c.AddFile("file", r)
	r.Close()
	c.AddFile("closed", r) // a worker may have closed its stderr
	if err := c.Err(); err != nil || len(c.Named) != 2 || c.Named[0].Name != "fd" || c.Named[1].Name != "file" {
		t.Fatalf("%v, %v", c.Named, err)
	}
	unix.Write(c.Named[0].FD, []byte("x"))
	if n, err := unix.Read(c.Named[1].FD, make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("read %d, %v: the copy is closed with the file", n, err)
	}
	if flags, err := unix.FcntlInt(uintptr(c.Named[1].FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("programs would get it: %#x, %v", flags, err)
	}
	c.Add("bad", -1)
	if c.Err() == nil || len(c.Named) != 2 {
		t.Errorf("%v, %v", c.Named, c.Err())
	}
	fd := c.Named[0].FD
	c.Close()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Error("open after Close: ", err)
	}
}
