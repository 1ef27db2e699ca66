package keeper

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// pty is a terminal whose other end the test closes.
func pty(t *testing.T) (terminal, other *os.File) {
	t.Helper()
	other, slave, err := linux.OpenPTY()
	if err != nil {
		t.Skip(err)
	}
	raw, err := slave.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { // as /dev/tty is opened
		dup, _ := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
		unix.SetNonblock(dup, true)
		terminal = os.NewFile(uintptr(dup), "tty")
	})
	slave.Close()
	t.Cleanup(func() { terminal.Close(); other.Close() })
	return terminal, other
}

// SIGHUP is an order to reload while the terminal lives, and to stop when it has closed.
func TestTerminalCloses(t *testing.T) {
	tty, other := pty(t)
	w := run(t, "serve", Config{Terminal: tty})
	w.await("ready")
	w.signals <- unix.SIGHUP
	w.await("signal SIGHUP")
	w.await("took SIGHUP")
	other.Close()
	w.signals <- unix.SIGHUP
	w.signals <- unix.SIGHUP
	w.await("signal SIGTERM")
	w.ends(7)
	w.said("the terminal has closed")
}

func TestWhatSIGHUPMeans(t *testing.T) {
	const reload, stop, nothing = unix.SIGHUP, unix.SIGTERM, unix.Signal(0)
	start := time.Now()
	tty, other := pty(t)
	living := terminal{file: tty}
	if got := living.means(unix.SIGHUP, start); got != reload {
		t.Errorf("the terminal lives: %v", got)
	}
	other.Close()
	for _, c := range []struct {
		what   string
		before terminal // since start
		signal unix.Signal
		after  time.Duration
		want   unix.Signal
	}{
		{"no terminal", terminal{}, unix.SIGHUP, 0, reload},
		{"it has just closed", terminal{file: tty}, unix.SIGHUP, 0, stop},
		{"it closed a moment ago", terminal{file: tty, closed: start}, unix.SIGHUP, hangupSpan - 1, stop},
		{"the kernel and the shell say so", terminal{file: tty, closed: start, stopped: start}, unix.SIGHUP, time.Second, nothing},
		{"the service has outlived it", terminal{file: tty, closed: start}, unix.SIGHUP, hangupSpan, reload},
		{"Ctrl-C, and it closes", terminal{file: tty, stopped: start}, unix.SIGHUP, time.Minute, nothing},
		{"its parent has ended, too", terminal{file: tty, closed: start, stopped: start}, unix.SIGTERM, sameStop - 1, nothing},
		{"a second stop, by hand", terminal{file: tty, closed: start, stopped: start}, unix.SIGTERM, sameStop, unix.SIGTERM},
		{"Ctrl-C twice", terminal{file: tty, stopped: start}, unix.SIGINT, 0, unix.SIGINT},
		{"another signal", terminal{file: tty, closed: start}, unix.SIGUSR2, 0, unix.SIGUSR2},
	} {
		if got := c.before.means(c.signal, start.Add(c.after)); got != c.want {
			t.Errorf("%s: %v means %v, want %v", c.what, c.signal, got, c.want)
		}
	}
	for asked, want := range map[time.Time]unix.Signal{{}: nothing, start: stop, start.Add(-2 * hangupLead): nothing} {
		told := terminal{file: tty, asked: asked}
		if got := told.hasClosed(start.Add(hangupLead)); got != want {
			t.Errorf("it closes after a SIGHUP at %v: %v, want %v", asked, got, want)
		}
		if again := told.means(unix.SIGHUP, start.Add(hangupLead)); want == stop && again != nothing {
			t.Errorf("and once more: %v", again)
		}
	}
}

// Whoever closes the terminal is noticed without a signal.
func TestTerminalIsWatched(t *testing.T) {
	tty, other := pty(t)
	watched := newTerminal(tty)
	defer watched.end()
	other.Write([]byte("typed\n")) // is nothing
	other.Close()
	select {
	case <-watched.closes:
	case <-time.After(testTimeout):
		t.Error("not noticed")
	}
}
