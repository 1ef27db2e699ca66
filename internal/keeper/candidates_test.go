package keeper

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
)

// upgrade starts a candidate each time that it gets SIGUSR2, and makes room for it at
// SIGHUP.
func (r *role) upgrade() {
	for s := range r.signals {
		own := s.(unix.Signal) - SignalBase
		r.took(own)
		switch own {
		case unix.SIGUSR2:
			r.keep.Upgrading(true)
			r.child(os.Getenv("KEEPER_TEST_CANDIDATE"), os.Args[0])
		case unix.SIGHUP:
			r.keep.Leaving()
			return
		}
	}
}

// announce says what a candidate says, and reports what it gets.
func (r *role) announce() {
	fdstore.Announce(os.Getenv("NOTIFY_SOCKET"))
	all, err := fdstore.TakeAll(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		r.report("refused %v", err)
		return
	}
	r.report("announced %d", len(all))
}

// succeeds announces a candidate, and waits for the end of the master that has started it.
func (r *role) succeeds() {
	parent, err := linux.OpenPidfd(os.Getppid())
	r.announce()
	if err == nil {
		parent.AwaitDeath(time.Time{})
	}
}

// lies has children that call themselves candidates, and are none: a program that is not
// handoff's while an upgrade is under way, and one that is while none is.
func (r *role) lies() {
	r.keep.Upgrading(true)
	r.child("lie", os.Getenv("KEEPER_TEST_LIAR")).Wait()
	r.keep.Upgrading(false)
	r.child("lie", os.Args[0]).Wait()
}

// A candidate takes over while the master lives, and is the master from then on.
func TestUpgrade(t *testing.T) {
	t.Setenv("KEEPER_TEST_CANDIDATE", "candidate")
	w := run(t, "upgrade", Config{})
	first := w.await("ready")
	w.signals <- unix.SIGUSR2
	w.await("announced")
	second := w.await("ready")
	t.Setenv("KEEPER_TEST_ROLE", "serve")
	if first == second {
		t.Errorf("the candidate is the master, %s", first)
	}
	for _, master := range []string{first, second} { // the first is no loss any more
		pid, _ := strconv.Atoi(master)
		kill(pid)
	}
	if rest := w.await("begins"); !strings.HasSuffix(rest, "restarts 1 reason killed by SIGKILL") {
		t.Errorf("%q", rest)
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// A candidate that is never ready is waited for, and killed in its time, once the master has
// made room for it.
func TestCandidateIsNeverReady(t *testing.T) {
	t.Setenv("KEEPER_TEST_CANDIDATE", "shy")
	w := run(t, "upgrade", Config{})
	w.await("ready")
	w.signals <- unix.SIGUSR2
	w.await("announced")
	t.Setenv("KEEPER_TEST_ROLE", "serve")
	began := time.Now()
	w.signals <- unix.SIGHUP
	if rest := w.await("begins"); !strings.HasSuffix(rest, "restarts 0 reason") {
		t.Errorf("%q: the master made room, and is no crash", rest)
	}
	if why := w.await("upgrade failed:"); why != "the new binary did not take over: it was not ready within 100ms" {
		t.Errorf("%q", why)
	}
	if took := time.Since(began); took < short.Candidate/2 {
		t.Errorf("the candidate had %v, want about %v", took, short.Candidate)
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// A candidate that ends when its master has made room for it: the next master says so.
func TestCandidateEnds(t *testing.T) {
	t.Setenv("KEEPER_TEST_CANDIDATE", "unready")
	waits := short
	waits.Candidate = testTimeout
	w := run(t, "upgrade", Config{Waits: waits})
	w.await("ready")
	w.signals <- unix.SIGUSR2
	w.await("announced")
	t.Setenv("KEEPER_TEST_ROLE", "serve")
	w.signals <- unix.SIGHUP
	if why := w.await("upgrade failed:"); why != "the new binary did not take over: exited with code 3" {
		t.Errorf("%q", why)
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// A service that is stopped while a candidate keeps it without a master is stopped by a
// master of the binary before.
func TestStopWhileACandidateIsAwaited(t *testing.T) {
	t.Setenv("KEEPER_TEST_CANDIDATE", "shy")
	waits := short
	waits.Candidate, waits.Stop = testTimeout, time.Second
	w := run(t, "upgrade", Config{Waits: waits})
	first, _ := strconv.Atoi(w.await("ready"))
	w.signals <- unix.SIGUSR2
	w.await("announced")
	t.Setenv("KEEPER_TEST_ROLE", "serve")
	w.signals <- unix.SIGHUP
	if p, err := linux.OpenPidfd(first); err == nil {
		p.AwaitDeath(time.Time{})
		p.Close()
	}
	w.signals <- unix.SIGTERM
	w.await("upgrade failed: the new binary did not take over: the service was stopped before it was ready")
	w.await("signal SIGTERM")
	w.ends(7)
}

// A new binary whose masters die as soon as they have taken over: the one before is used
// again, and says why.
func TestNewBinaryDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "newer")
	copyFile(t, os.Args[0], path)
	t.Setenv("KEEPER_TEST_CANDIDATE", "newer")
	t.Setenv("KEEPER_TEST_NEWER", path)
	waits := short
	waits.Candidate = testTimeout
	w := run(t, "upgrade", Config{Path: path, Waits: waits})
	w.await("ready")
	w.signals <- unix.SIGUSR2
	w.await("announced")
	t.Setenv("KEEPER_TEST_ROLE", "brittle")
	w.signals <- unix.SIGHUP
	for range maxDeaths {
		w.await("ready")
	}
	if why := w.await("upgrade failed:"); why != "3 masters of the new binary died within 10s of their start (exited with code 2)" {
		t.Errorf("%q", why)
	}
	w.await("serves")
	w.said("using the previous binary again")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// A new binary whose master takes over and does nothing: it is killed, and the one before
// is used again.
func TestNewBinaryHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "newer")
	copyFile(t, os.Args[0], path)
	t.Setenv("KEEPER_TEST_CANDIDATE", "newer-hangs")
	waits := short
	waits.Candidate = 2 * time.Second
	w := run(t, "upgrade", Config{Path: path, Waits: waits})
	w.await("ready")
	w.signals <- unix.SIGUSR2
	w.await("announced")
	t.Setenv("KEEPER_TEST_ROLE", "serve")
	w.signals <- unix.SIGHUP
	if why := w.await("upgrade failed:"); why != "the master of the new binary took over, and did nothing" {
		t.Errorf("%q", why)
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
}

// A binary is on trial until a master of it has lived for some time; somebody's kill -9 is
// no fault of it.
func TestTrial(t *testing.T) {
	const crash, killed = unix.WaitStatus(2 << 8), unix.WaitStatus(unix.SIGKILL)
	image := func(name string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		name   string
		first  bool // there was no upgrade
		deaths []unix.WaitStatus
		lived  time.Duration
		want   string
	}{
		{name: "crashes", deaths: []unix.WaitStatus{crash, crash, crash}, want: "old"},
		{name: "crashes twice", deaths: []unix.WaitStatus{crash, crash}, want: "new"},
		{name: "back and forth", deaths: []unix.WaitStatus{crash, crash, crash, crash, crash, crash}, want: "new"},
		{name: "killed", deaths: []unix.WaitStatus{killed, killed, killed, killed}, want: "new"},
		{name: "crashes later", deaths: []unix.WaitStatus{crash, crash, crash}, lived: time.Hour, want: "new"},
		{name: "no upgrade", first: true, deaths: []unix.WaitStatus{crash, crash, crash}, want: "new"},
	} {
		var b binaries
		if !c.first {
			b.ready(image("old"))
		}
		b.ready(image("new"))
		for _, s := range c.deaths {
			b.died(s, c.lived, time.Minute)
		}
		if got := filepath.Base(b.current.Name()); got != c.want || (b.upgradeFailed() != "") != (len(c.deaths) >= maxDeaths && c.deaths[0] == crash && c.lived == 0 && !c.first) {
			t.Errorf("%s: the next master is of the %s binary, failed: %q", c.name, got, b.upgradeFailed())
		}
		b.current.Close()
		b.previous.Close()
	}
}

// A child of the master that calls itself a candidate is believed only while an upgrade is
// under way, and if it is the binary that the upgrade starts.
func TestLiar(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	copyFile(t, os.Args[0], other)
	t.Setenv("KEEPER_TEST_LIAR", other)
	w := run(t, "liar", Config{})
	for range 2 {
		w.await("refused")
	}
	w.await("ready")
	for _, s := range w.seen {
		if strings.HasPrefix(s, "announced") {
			t.Error("a liar is believed: it has what the keeper holds")
		}
	}
	w.signals <- unix.SIGTERM
	w.ends(7)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(out, in)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
