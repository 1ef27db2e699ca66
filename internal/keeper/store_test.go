package keeper

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/lingertest"
	"handoff/internal/linux"
	"handoff/internal/sdnotify"
)

// keeps reports what it is given, and keeps something the first time.
func (r *role) keeps() {
	all, err := fdstore.TakeAll(os.Getenv("NOTIFY_SOCKET"))
	var names []string
	for _, n := range all {
		names = append(names, n.Name)
	}
	r.report("has %v %v", names, err)
	if len(all) < 2 {
		in, out, _ := os.Pipe()
		r.keep.StoreFile(fdstore.WorkerName(1, fdstore.Stderr), in)
		r.keep.StoreFile(fdstore.Program, out)
	}
	r.keep.NotifyManager("STATUS=keeps")
}

// What a master has kept, and what a service manager has passed, the next one has; the
// service manager hears of it, and of the end.
func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "manager")
	above, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer above.Close()
	heard := make(chan string, 100)
	go func() { // ends with the socket
		defer close(heard)
		for buf := make([]byte, 1<<12); ; {
			n, _, _, _, err := above.ReadMsgUnix(buf, make([]byte, 64)) // what comes with it is cut off
			if err != nil {
				return
			}
			heard <- string(buf[:n])
		}
	}()
	w := run(t, "keeps", Config{Upstream: path, Stores: true, Passed: []cmsg.Named{{Name: "web:x", FD: devNull(t)}}})
	if rest := w.await("has"); rest != "[passed-0-web_x] <nil>" {
		t.Errorf("%s", rest)
	}
	pid, _ := strconv.Atoi(w.await("ready"))
	kill(pid)
	if rest := w.await("has"); rest != "[passed-0-web_x w1-stderr program] <nil>" {
		t.Errorf("%s", rest)
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
	above.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // all is in the queue
	var all []string
	left := map[string]bool{}
	for text := range heard {
		all = append(all, text)
		_, name, _ := strings.Cut(text, "FDNAME=")
		switch {
		case strings.HasPrefix(text, "FDSTORE=1"):
			left[name] = true
		case strings.HasPrefix(text, "FDSTOREREMOVE=1"):
			delete(left, name)
		}
	}
	if len(left) > 0 {
		t.Errorf("left in the service manager's store: %v", left)
	}
	for _, want := range []string{"STATUS=keeps", "FDSTORE=1\nFDPOLL=0\nFDNAME=keep-w1-stderr.1", "FDSTORE=1\nFDPOLL=0\nFDNAME=keep-state.1", "FDSTOREREMOVE=1\nFDNAME=keep-master.1"} {
		if !slices.Contains(all, want) {
			t.Errorf("the service manager has not heard %q: %q", want, all)
		}
	}
}

// A keeper that comes after another has what that one held, the newest of each name, and
// ends its master.
func TestAfterAnotherKeeper(t *testing.T) {
	before, err := os.StartProcess("/bin/sleep", []string{"sleep", "60"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(before.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, old, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	older, err := unix.Dup(int(old.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	old.Close()
	w := run(t, "keeps", Config{Kept: []cmsg.Named{{Name: "w1-pid.9", FD: devNull(t)}, {Name: "w1-pid.8", FD: older}, {Name: "state", FD: devNull(t)}, {Name: fdstore.Master, FD: pidfd}}})
	if rest := w.await("begins"); !strings.Contains(rest, "reason its keeper died") {
		t.Errorf("%q", rest)
	}
	if rest := w.await("has"); rest != "[w1-pid state] <nil>" {
		t.Errorf("%s", rest)
	}
	r.SetReadDeadline(time.Now().Add(testTimeout))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the older of two is not closed: %v", err)
	}
	if unix.Kill(before.Pid, 0) == nil {
		t.Error("the master of the keeper before lives")
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// Somebody who is not believed sends descriptors that take a minute to close: nothing waits.
func TestStrangerHoldsNothingUp(t *testing.T) {
	w := run(t, "serve", Config{Dir: t.TempDir()})
	pid, _ := strconv.Atoi(w.await("ready"))
	address := linux.Lookup(linux.Environ(pid), "NOTIFY_SOCKET")
	for range 3 {
		fd, undo := lingertest.Socket(t)
		defer undo()
		if err := sdnotify.Send(address, "FDSTORE=1\nFDNAME=state", fd); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	w.signals <- unix.SIGUSR2
	w.await("took SIGUSR2")
	kill(pid)
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
	if left, _ := os.ReadDir(filepath.Dir(address)); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// The runtime folder is removed, and then the master dies: the next one reaches the keeper.
func TestRuntimeFolderIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	w := run(t, "serve", Config{Dir: dir})
	pid, _ := strconv.Atoi(w.await("ready"))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	kill(pid)
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
	w.said("has been removed: listening on " + dir)
}

// A master sends its notice and exits while the death of another child is handled: the exit
// is intended, and no master follows.
func TestNoticeBeforeADeath(t *testing.T) {
	t.Setenv("KEEPER_TEST_ROLE", "leaves")
	reports := filepath.Join(t.TempDir(), "reports")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: reports, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("KEEPER_TEST_REPORTS", reports)
	k := newKeeper(Config{Path: os.Args[0], Stderr: io.Discard, Waits: short})
	if k.binaries.current, err = os.Open(os.Args[0]); err != nil { // there has been a master before
		t.Fatal(err)
	}
	defer k.binaries.current.Close()
	if k.socket, err = listen(sdnotify.Place{Dir: t.TempDir(), UID: os.Geteuid()}); err != nil {
		t.Fatal(err)
	}
	defer k.socket.close()
	if err := k.start(); err != nil {
		t.Fatal(err)
	}
	p, err := linux.OpenPidfd(k.master.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.AwaitDeath(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	if code, ended := k.reap(); code != 7 || !ended {
		t.Errorf("exit code %d, ended: %v", code, ended)
	}
}

func devNull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
