package bindintercept

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reported are the calls of a program that are reported: all of them go on.
func reported(t *testing.T, names []string, steps ...string) (calls []*Call) {
	t.Helper()
	p := start(t, steps...)
	p.names.Set(names)
	if steps[0] == "pause" {
		p.stdin.Write([]byte{1})
	}
	for c := p.next(); c != nil; c = p.next() {
		calls = append(calls, c)
		c.Continue()
	}
	return calls
}

// Of the names of files only those are reported that somebody cares for, in whatever folder
// they are; and where that is, however it was said.
func TestNamesReported(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("l", 60), strings.Repeat("m", 60))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(long, filepath.Join(dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	want := func() Place {
		s, folder, err := (&Call{Request: Request{PID: os.Getpid(), TGID: os.Getpid()}}).resolve(unix.AT_FDCWD, long+"/s")
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(folder)
		return s.Place
	}()
	calls := reported(t, []string{"s"}, "pause", "unlink "+dir+"/other", "unlink "+long+"/s", "chdir "+dir, "unlink tmp/s",
		"folder "+dir+"/tmp", "unlinkat s", "rename tmp/s tmp/t", "rename tmp/x tmp/s", "unlink "+long+"/s/", "unlink tmp/../s")
	var at []bool
	for _, c := range calls {
		at = append(at, c.Spot.Place == want || c.To.Place == want)
	}
	if !reflect.DeepEqual(at, []bool{true, true, true, true, true, false}) {
		t.Errorf("%v", at)
		for _, c := range calls {
			t.Errorf("%+v", c.Request)
		}
	}
}

// A socket's name is known from its bind on: also when the working directory has changed, and
// its file was renamed.
func TestBoundIsFollowed(t *testing.T) {
	dir := t.TempDir()
	calls := reported(t, nil, "chdir "+dir, "socket unix", "bind first", "chdir /", "rename "+dir+"/first "+dir+"/second", "listen")
	if len(calls) != 3 {
		t.Fatalf("%d calls", len(calls))
	}
	s := calls[2].Spot
	if !calls[2].Listen || s.Name != "second" || s.File == (File{}) || s.Path != filepath.Join(dir, "second") {
		t.Errorf("%+v", s)
	}
}

// While several workers start, an unlink of a socket is reported, whoever holds it, and
// executed for the program; what is not there, or is no socket, is the program's own affair.
func TestUnheldUnlinks(t *testing.T) {
	dir := t.TempDir()
	for _, several := range []bool{true, false} {
		l, err := net.Listen("unix", dir+"/socket")
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p := start(t, "pause", "unlink "+dir+"/none", "unlink "+dir+"/file", "unlink "+dir+"/socket", "unlink "+dir+"/file")
		if several {
			p.names.Several(time.Now().Add(time.Hour))
		} else {
			p.names.Several(time.Now())
		}
		p.stdin.Write([]byte{1})
		var calls []*Call
		for c := p.next(); c != nil; c = p.next() {
			if calls = append(calls, c); !c.Unheld || c.Spot.Name != "socket" {
				t.Errorf("%+v", c.Request)
			}
			c.Remove(func() {})
		}
		if n := len(calls); several != (n == 1) || n > 1 {
			t.Errorf("several: %v: %d calls", several, n)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("several: %v: %v is left", several, files)
		}
	}
}
