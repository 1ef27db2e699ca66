package sdnotify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/lingertest"
)

// folder is one where others may pass through all that leads to it.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o711)
	return dir
}

// Where a socket is, and who may send to it.
func TestListen(t *testing.T) {
	me := os.Geteuid()
	long := filepath.Join(folder(t), strings.Repeat("x", 90))
	file := filepath.Join(folder(t), "file")
	os.WriteFile(file, nil, 0o600)
	open, closed, shared := filepath.Join(folder(t), "new/run"), folder(t), folder(t)
	os.Chmod(closed, 0o700)
	os.Chmod(shared, 0o777)
	link := filepath.Join(folder(t), "link")
	os.Symlink(open, link)
	for what, c := range map[string]struct {
		place Place
		in    string // "": abstract
		root  bool   // only root can
	}{
		"the service's folder":                  {Place{Dir: open, UID: me}, open, false},
		"one that only this user may enter":     {Place{Dir: closed, UID: me}, closed, false},
		"the same, and another user is to send": {Place{Dir: closed, UID: 65534, others: []string{open}}, open, true},
		"others may write there":                {Place{Dir: shared, UID: me, others: []string{open}}, open, false},
		"a link":                                {Place{Dir: link, UID: me, others: []string{open}}, open, false},
		"a relative path":                       {Place{Dir: "run", UID: me, others: []string{open}}, open, false},
		"too long":                              {Place{Dir: long, UID: me, others: []string{open}}, open, false},
		"a file":                                {Place{Dir: file, UID: me, others: []string{open}}, open, false},
		"nothing":                               {Place{UID: me, others: []string{file}}, "", false},
	} {
		t.Run(what, func(t *testing.T) {
			if c.root && me != 0 {
				t.Skip("needs root")
			}
			conn, address, err := c.place.Listen()
			if err != nil {
				t.Fatal(err)
			}
			defer Close(conn)
			if err := Send(address, "READY=1"); err != nil {
				t.Error(err)
			}
			if c.in == "" {
				if !Abstract(address) {
					t.Errorf("%s, want an abstract one", address)
				}
				return
			}
			if filepath.Dir(address) != filepath.Join(c.in, "notify") || Abstract(address) {
				t.Fatalf("%s, want it in %s", address, c.in)
			}
			if got := about(t, address); got != fmt.Sprintf("Srw------- of %d", c.place.UID) {
				t.Errorf("%s is %s", address, got)
			}
			if got := about(t, filepath.Dir(address)); me == 0 && got != "drwx--x--x of 0" || me != 0 && got != fmt.Sprintf("drwx------ of %d", me) {
				t.Errorf("its folder is %s", got)
			}
			if Close(conn); Send(address, "READY=1") == nil {
				t.Error("it is there when it is closed")
			}
			if left, _ := os.ReadDir(filepath.Dir(address)); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

func about(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%v of %d", info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
}

// Nothing is made in a folder that somebody has put a link to in the place of one.
func TestListenMakesNothingElsewhere(t *testing.T) {
	at, elsewhere := filepath.Join(folder(t), "link"), folder(t)
	os.Symlink(elsewhere, at)
	c, address, err := Place{Dir: at, UID: os.Geteuid(), others: []string{}}.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(c)
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 || !Abstract(address) {
		t.Errorf("%v, %v, %s", left, err, address)
	}
}

// What a process that was killed has left goes; what somebody has, or has just made, stays.
func TestSweep(t *testing.T) {
	p := Place{Dir: folder(t), UID: os.Geteuid(), others: []string{}}
	old := time.Now().Add(-time.Hour)
	var paths []string
	for _, kind := range []string{"live", "left", "young"} {
		c, path, err := p.Listen()
		if err != nil {
			t.Fatal(err)
		}
		if kind != "young" {
			os.Chtimes(path, old, old)
		}
		if kind == "live" {
			defer Close(c)
		} else {
			c.Close() // as the kernel does
		}
		paths = append(paths, path)
	}
	other := filepath.Join(p.Dir, "notify", "a file")
	os.WriteFile(other, nil, 0o600)
	os.Chtimes(other, old, old)
	p.Sweep()
	for _, path := range append(paths, other) {
		_, err := os.Lstat(path)
		if stays := path != paths[1]; (err == nil) != stays {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Root removes nothing in a folder that another user has put where one is looked for: that
// one could exchange it for a link to any folder meanwhile.
func TestSweepElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for what, make := range map[string]func(dir string){
		"another user's": func(dir string) { os.Lchown(filepath.Join(dir, "notify"), 65534, 65534) },
		"a link": func(dir string) {
			os.Rename(filepath.Join(dir, "notify"), filepath.Join(dir, "etc"))
			os.Symlink("etc", filepath.Join(dir, "notify"))
			os.Lchown(filepath.Join(dir, "notify"), 65534, 65534)
		},
		"open to others": func(dir string) { os.Chmod(filepath.Join(dir, "notify"), 0o777) },
	} {
		p := Place{Dir: folder(t), UID: 0, others: []string{}}
		c, path, err := p.Listen()
		if err != nil {
			t.Fatal(err)
		}
		c.Close() // as the kernel does
		old := time.Now().Add(-time.Hour)
		os.Chtimes(path, old, old)
		make(p.Dir)
		p.Sweep()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whoever holds a reader up by a descriptor that takes long to close does not hold up what
// others say.
func TestDescriptorThatLingers(t *testing.T) {
	h := serve(t, myself, nil)
	fd, undo := lingertest.Socket(t)
	defer undo()
	if err := Send(h.address, "STATUS=lingers", fd); err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	h.next()
	Send(h.address, "READY=1")
	if n := h.next(); !n.Ready {
		t.Errorf("%+v", n)
	}
}
