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
	if took := time.Since(began); took < short.Candidate/2 {
		t.Errorf("the candidate had %v, want about %v", took, short.Candidate)
	}
	w.await("ready")
	w.signals <- unix.SIGTERM
	w.ends(7)
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
