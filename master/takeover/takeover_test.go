package takeover

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/takeover"
)

// The test binary is the relay process, and a worker: it accepts, says so, and does not
// answer.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == takeover.Word {
		os.Exit(takeover.Process())
	}
	if os.Getenv("ROOM_TEST_WORKER") != "" {
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) // nobody outlives the test
		l, err := net.FileListener(os.NewFile(3, "listener"))
		for err == nil {
			if _, err = l.Accept(); err == nil {
				os.Stdout.WriteString("accepted\n")
			}
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// loop is the master's.
type loop struct {
	*Room
	t      *testing.T
	posted chan any
	stored []string
}

func newLoop(t *testing.T) *loop {
	l := &loop{t: t, posted: make(chan any, 100)}
	names := make(chan string, 100)
	l.Room = New(Config{Post: func(what any) { l.posted <- what }, Store: func(name string, _ int) { names <- name },
		Remove: func(name string) { names <- "-" + name }})
	t.Cleanup(func() {
		close(names)
		for name := range names {
			l.stored = append(l.stored, name)
		}
	})
	return l
}

// until handles what is posted until a notice is there.
func (l *loop) until(ok func(Notice) bool) Notice {
	l.t.Helper()
	late := time.After(20 * time.Second) // for failure only
	for {
		select {
		case what := <-l.posted:
			for _, n := range l.Handle(what) {
				if ok(n) {
					return n
				}
			}
		case <-late:
			l.t.Fatal("nothing is said")
		}
	}
}

func ready(n Notice) bool { _, ok := n.(Ready); return ok }

// worker starts one, and a client of it.
func worker(t *testing.T) (j takeover.Job, p *os.Process) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	self, _ := os.Executable()
	c := exec.Command(self)
	c.Env, c.ExtraFiles, c.Stderr = append(os.Environ(), "ROOM_TEST_WORKER=1"), []*os.File{f}, os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil && err != io.EOF || line != "accepted\n" {
		t.Fatalf("%q, %v", line, err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return takeover.Job{Target: takeover.Target{Worker: 7, PID: c.Process.Pid, Held: []netip.AddrPort{at}, Peers: takeover.Local},
		Watch: time.Minute, Linger: time.Minute}, c.Process
}

// A worker without connections is told at once, and nothing runs.
func TestNothingToTake(t *testing.T) {
	l := newLoop(t)
	j := takeover.Job{Target: takeover.Target{Worker: 1, PID: os.Getpid(), Peers: takeover.Local}}
	l.Begin(1, j, time.Now())
	if n := l.until(ready).(Ready); n.Err != nil || n.Worker != 1 || l.State() != nil || l.Pending(1) {
		t.Errorf("%+v, state %+v", n, l.State())
	}
}

// The relay process is killed: what it had is counted, and the worker hears again.
func TestKilled(t *testing.T) {
	j, p := worker(t)
	l := newLoop(t)
	l.Begin(7, j, time.Now())
	if n := l.until(ready).(Ready); n.Err != nil || n.Armed.Filtered != 1 {
		t.Fatalf("%+v", n)
	}
	if s := l.State(); s == nil || !slices.Equal(s.Armed, []Worker{7}) || len(s.Pending) > 0 {
		t.Errorf("state %+v", s)
	}
	p.Kill()
	l.until(func(Notice) bool { return l.totals.Owned == 1 })
	l.Kept(func(name string, fd int) {
		if name == Process {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
	})
	if n := l.until(func(n Notice) bool { _, ok := n.(Lost); return ok }).(Lost); n.Connections != 1 {
		t.Errorf("%+v", n)
	}
	l.until(func(n Notice) bool { _, ok := n.(Swept); return ok })
	if l.State() != nil {
		t.Errorf("state %+v", l.State())
	}
}

// A worker is told at its deadline, and when the service stops.
func TestDeadline(t *testing.T) {
	l := newLoop(t)
	now := time.Now()
	l.pending[3], l.pending[4] = now.Add(time.Second), now.Add(time.Minute)
	if at := l.Deadline(); !at.Equal(now.Add(time.Second)) {
		t.Errorf("deadline %v", at)
	}
	if said := l.Tick(now.Add(time.Second)); len(said) != 1 || said[0].(Ready).Worker != 3 || said[0].(Ready).Err != ErrLate {
		t.Errorf("%+v", said)
	}
	if said := l.Hurry(); len(said) != 1 || said[0].(Ready).Worker != 4 || !l.Deadline().IsZero() {
		t.Errorf("%+v", said)
	}
}
