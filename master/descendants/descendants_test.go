package descendants

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// The test binary plays the workers, and what they start. The test's process is the keeper:
// orphans fall to it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "play" {
		play(os.Args[2], os.Args[3:])
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// play does what a role is: each begins by saying its pid on stdout.
//
//	deaf                 ignores SIGTERM
//	heeds                does not
//	serves               neither, and has an accepted connection
//	stays HOW ROLE…      starts another one, and stays
//	leaves HOW ROLE…     starts another one, and exits once that runs
//
// HOW is "", or of: s (in a session of its own), g (in a group of its own), e (without an
// environment), o (with somebody else's), x (as another program),
// j (in the group JOIN).
func play(role string, rest []string) {
	if role == "deaf" {
		signal.Ignore(unix.SIGTERM)
	}
	if role == "serves" {
		defer accepts().Close()
	}
	if role == "stays" || role == "leaves" {
		c := exec.Command("/proc/self/exe", append([]string{"play"}, rest[1:]...)...)
		c.SysProcAttr = &unix.SysProcAttr{Setsid: strings.Contains(rest[0], "s"), Setpgid: strings.Contains(rest[0], "g")}
		if strings.Contains(rest[0], "j") {
			c.SysProcAttr.Setpgid = true
			c.SysProcAttr.Pgid, _ = strconv.Atoi(os.Getenv("JOIN"))
		}
		if strings.Contains(rest[0], "e") {
			c.Env = []string{}
		}
		if strings.Contains(rest[0], "o") {
			c.Env = []string{"A=1"}
		}
		if strings.Contains(rest[0], "x") {
			c.Path = os.Getenv("OTHER")
		}
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		lines := bufio.NewScanner(out)
		for range strings.Count(strings.Join(rest, " "), "stays") + strings.Count(strings.Join(rest, " "), "leaves") + 1 {
			lines.Scan()
			fmt.Println(lines.Text())
		}
	}
	fmt.Println(os.Getpid())
	for role != "leaves" {
		unix.Pause()
	}
}

// accepts returns a connection that this process has accepted.
func accepts() net.Conn {
	l, err := net.Listen("unix", "@descendants-test-"+strconv.Itoa(os.Getpid()))
	if err != nil {
		panic(err)
	}
	defer l.Close()
	if _, err = net.Dial("unix", l.Addr().String()); err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	return c
}

const testTimeout = 20 * time.Second // for failure only

// world is a tracker, and what its worker has started: the innermost first.
type world struct {
	*testing.T
	*Tracker
	died  chan struct{}
	began time.Time
	all   []Process
	cmd   *exec.Cmd
}

const instance = "test-instance"

// start starts worker 1.
func start(t *testing.T, roles ...string) *world {
	t.Helper()
	w := &world{T: t, died: make(chan struct{}, 100), began: time.Now()}
	w.next()
	w.cmd = exec.Command("/proc/self/exe", append([]string{"play"}, roles...)...)
	w.cmd.Env = []string{"HANDOFF_INSTANCE=" + instance, "HANDOFF_WORKER=1", "OTHER=" + os.Getenv("OTHER")}
	w.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Started(1, w.cmd.Process.Pid)
	t.Cleanup(func() {
		for _, p := range w.all {
			if pidfd, err := p.open(); err == nil {
				pidfd.Signal(unix.SIGKILL)
				pidfd.Close()
			}
		}
	})
	lines := bufio.NewScanner(out)
	for range strings.Count(strings.Join(roles, " "), "stays") + strings.Count(strings.Join(roles, " "), "leaves") + 1 {
		if !lines.Scan() {
			t.Fatal("it does not say its pid")
		}
		pid, _ := strconv.Atoi(lines.Text())
		s, err := linux.ReadStat(pid)
		if err != nil {
			s.PID = pid // it has left already
		}
		w.all = append(w.all, describe(s))
	}
	names := slices.DeleteFunc(slices.Clone(roles), func(s string) bool { return len(s) < 4 })
	slices.Reverse(names)
	for i, p := range w.all {
		if names[i] != "leaves" {
			continue
		}
		if pidfd, err := p.open(); err == nil { // it is about to
			pidfd.AwaitDeath(time.Now().Add(testTimeout))
			pidfd.Close()
		}
	}
	return w
}

// next has a tracker that knows nothing yet.
func (w *world) next() {
	w.Tracker = New(Config{Keeper: os.Getpid(), Instance: instance, Died: func() { w.died <- struct{}{} }})
}

// ends ends the worker, and returns the pids that it leaves.
func (w *world) ends() (left []int) {
	w.Helper()
	w.Look(1)
	unix.Kill(w.cmd.Process.Pid, unix.SIGKILL)
	return w.ended()
}

func (w *world) ended() (left []int) {
	w.Helper()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, w.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		w.Fatal(err)
	}
	orphans := w.Orphans(testTimeout)()
	for _, p := range w.Left(1, orphans, w.Holdings()(orphans), true) {
		left = append(left, p.PID)
	}
	w.cmd.Wait()
	return left
}

// awaitIdle waits until the tracker has nothing left.
func (w *world) awaitIdle() {
	w.Helper()
	late := time.After(testTimeout)
	for !w.Idle() {
		select {
		case <-w.died:
			w.Refresh()
		case <-late:
			w.Fatalf("%+v are left", w.State())
		}
	}
	for _, p := range w.all {
		if w.alive(p) {
			w.Errorf("%v is left", p)
		}
	}
}

func (w *world) alive(p Process) bool {
	s, err := linux.ReadStat(p.PID)
	return err == nil && s.Start == p.Start && !dead(s)
}

// said are the notices, in words.
func (w *world) said() (all []string) {
	for _, n := range w.Notices() {
		if !n.Until.IsZero() {
			all = append(all, fmt.Sprintf("%d finish", len(n.Processes)))
			continue
		}
		all = append(all, fmt.Sprintf("%s %d: %s", unix.SignalName(n.Signal), len(n.Processes), n.Reason))
	}
	return all
}

func (w *world) want(got, want []string) {
	w.Helper()
	if !slices.Equal(got, want) {
		w.Errorf("%q, want %q", got, want)
	}
}

// At the KILL rung everything that descends from a worker is killed: what is in its group,
// in a session of its own, and a daemon whose parents have gone.
func TestKill(t *testing.T) {
	for _, roles := range []string{"stays s deaf", "stays g deaf", "stays s stays s deaf", "stays s leaves s deaf", "stays s leaves s leaves s deaf"} {
		t.Run(roles, func(t *testing.T) {
			w := start(t, strings.Split(roles, " ")...)
			w.Kill(1, func() { unix.Kill(w.cmd.Process.Pid, unix.SIGKILL) })
			w.ended()
			w.End(1, End{}, time.Now())
			w.awaitIdle()
		})
	}
}

// Whoever forks without end is quicker than who looks: the group is killed with those in it
// that nobody has seen.
func TestGroupIsKilled(t *testing.T) {
	w := start(t, "stays", "", "deaf")
	t.Setenv("JOIN", strconv.Itoa(w.cmd.Process.Pid))
	unseen := exec.Command("/proc/self/exe", "play", "stays", "j", "deaf") // the child of a process that is not the worker's
	unseen.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	out, err := unseen.StdoutPipe()
	if err == nil {
		err = unseen.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		unseen.Process.Kill()
		unseen.Wait()
	}()
	lines := bufio.NewScanner(out)
	lines.Scan()
	pid, _ := strconv.Atoi(lines.Text())
	s, err := linux.ReadStat(pid)
	if err != nil || s.Group != w.cmd.Process.Pid {
		t.Fatal(s, err)
	}
	w.all = append(w.all, describe(s))
	w.ends()
	w.End(1, End{By: w.began.Add(time.Minute), Grace: time.Second}, w.began)
	pidfd, err := describe(s).open()
	if err != nil {
		t.Skip("it is seen, and has ended: ", err)
	}
	defer pidfd.Close()
	if err := pidfd.SignalGroup(0); err == unix.EINVAL {
		t.Skip("a process group cannot be signalled by a pidfd before Linux 6.9")
	}
	w.Hurry(w.began)
	if err := pidfd.AwaitDeath(time.Now().Add(testTimeout)); err != nil {
		t.Error("a process of the group lives: ", err)
	}
	w.awaitIdle()
}

// What a worker leaves gets SIGTERM, then SIGKILL.
func TestLeft(t *testing.T) {
	for roles, how := range map[string]string{"stays s deaf": "by its parent", "stays s leaves s deaf": "by its environment",
		"stays s leaves se deaf": "since nothing else is known of it"} {
		t.Run(how, func(t *testing.T) {
			w := start(t, strings.Split(roles, " ")...)
			if left := w.ends(); !slices.Equal(left, []int{w.all[0].PID}) {
				t.Fatalf("left are %v, want %v", left, w.all[0])
			}
			if !w.Detached(1, w.all[:1]) {
				t.Error("it is in a session of its own")
			}
			now := time.Now()
			w.End(1, End{Grace: time.Minute}, now)
			w.want(w.said(), []string{"SIGTERM 1: their worker has exited"})
			if at := w.Tracker.Deadline(); !at.Equal(now.Add(time.Minute)) || w.Idle() || !w.alive(w.all[0]) {
				t.Errorf("deadline %v", at)
			}
			w.Tick(now.Add(time.Second))
			w.want(w.said(), nil)
			w.Tick(now.Add(time.Minute))
			w.want(w.said(), []string{"SIGKILL 1: did not exit on SIGTERM"})
			w.awaitIdle()
		})
	}
}

// Of two workers that go into the background at once, and whose environment is overwritten,
// each has left one: which, nobody knows.
func TestGuess(t *testing.T) {
	w := start(t, "stays", "s", "leaves", "se", "deaf")
	second := start(t, "stays", "s", "leaves", "se", "deaf")
	w.Started(2, second.cmd.Process.Pid)
	if left := w.ends(); len(left) != 2 {
		t.Errorf("left are %v", left)
	}
	w.End(1, End{}, time.Now())
	unix.Kill(second.cmd.Process.Pid, unix.SIGKILL)
	second.cmd.Wait()
	left := w.Left(2, nil, nil, false)
	if len(left) != 1 || left[0].PID != w.all[0].PID && left[0].PID != second.all[0].PID || !w.Detached(2, left) {
		t.Errorf("left are %v", left)
	}
	if left := w.Left(2, nil, nil, false); left != nil {
		t.Errorf("left are %v", left)
	}
	w.End(2, End{}, time.Now())
	w.Tick(time.Now())
	w.awaitIdle()
}

// A process of somebody else's, which has fallen to the keeper too, is left alone.
func TestOfSomebodyElse(t *testing.T) {
	w := start(t, "stays", "s", "leaves", "so", "deaf")
	if left := w.ends(); left != nil {
		t.Errorf("%v are taken for the worker's", left)
	}
	w.End(1, End{}, time.Now())
	if !w.Idle() || !w.alive(w.all[0]) {
		t.Error("it was ended")
	}
}

// One of which nothing tells but the kernel, by a call of its, is ended: at once, if its
// worker has ended before.
func TestFound(t *testing.T) {
	for _, late := range []bool{false, true} {
		w := start(t, "stays", "s", "leaves", "so", "deaf")
		now := time.Now()
		found := func() { w.Found(1, w.all[0].PID, time.Second, now) }
		if !late {
			found()
		}
		if left := w.ends(); slices.Contains(left, w.all[0].PID) == late {
			t.Errorf("left are %v", left)
		}
		w.End(1, End{Grace: time.Second}, now)
		if late {
			found()
		}
		w.want(w.said(), []string{"SIGTERM 1: their worker has exited"})
		found()
		w.want(w.said(), nil)
		w.Tick(now.Add(time.Second))
		w.want(w.said(), []string{"SIGKILL 1: did not exit on SIGTERM"})
		w.awaitIdle()
	}
}

// Of orphans with a worker's filter, one is the worker's that ends; of several each may be
// another worker's, if one lives.
func TestByFilter(t *testing.T) {
	leader := Process{PID: 1 << 22, Start: 100}
	orphan := func(pid int) Orphan { return Orphan{Stat: linux.Stat{PID: pid, Start: 100, Parent: 7}, Filtered: true} }
	elsewhere, before, plain, hooks := orphan(11), orphan(12), orphan(13), orphan(14)
	elsewhere.Stat.Parent, before.Stat.Start, plain.Filtered, hooks.Foreign = 8, 99, false, true
	for _, c := range []struct {
		others  bool
		orphans []Orphan
		want    int
	}{
		{true, []Orphan{orphan(1), elsewhere, before, plain, hooks}, 1},
		{true, []Orphan{orphan(1), orphan(2)}, 0},
		{false, []Orphan{orphan(1), orphan(2)}, 2},
	} {
		tr := &tree{of: 1, leader: leader}
		all := New(Config{Keeper: 7})
		if all.trees = append(all.trees, tr); c.others {
			all.trees = append(all.trees, &tree{of: 2})
		}
		if all.byFilter(c.orphans, tr); len(tr.members) != c.want {
			t.Errorf("%+v: %v", c, tr.processes())
		}
	}
}

// A server that drains by children in its own group has the drain timeout; who is outside
// of it has not been told, and is.
func TestWaits(t *testing.T) {
	w := start(t, "stays", "", "heeds")
	w.ends()
	now := time.Now()
	w.End(1, End{By: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.want(w.said(), nil)
	if w.Idle() || !w.alive(w.all[0]) {
		t.Error("it has not got its time")
	}
	w.Tick(now.Add(time.Minute))
	w.want(w.said(), []string{"SIGTERM 1: drain timeout"})
	w.awaitIdle()

	w = start(t, "stays", "s", "heeds")
	w.ends()
	w.End(1, End{By: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.want(w.said(), []string{"SIGTERM 1: their parent has exited"})
	w.awaitIdle()

	self, err := os.ReadFile("/proc/self/exe")
	other := filepath.Join(t.TempDir(), "other")
	if err == nil {
		err = os.WriteFile(other, self, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTHER", other)
	w = start(t, "stays", "x", "heeds") // as a shell does, which passes no signals on
	w.ends()
	w.End(1, End{By: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.want(w.said(), []string{"SIGTERM 1: their parent has exited"})
	w.awaitIdle()

	w = start(t, "stays", "", "deaf")
	w.ends()
	w.End(1, End{By: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.Hurry(now)
	w.want(w.said(), []string{"SIGKILL 1: the service stops immediately"})
	w.awaitIdle()
}

// A pid that is in use again is somebody else's.
func TestPidInUseAgain(t *testing.T) {
	w := start(t, "deaf")
	other := w.all[0]
	other.Start--
	next := New(Config{Keeper: os.Getpid(), Died: func() {}})
	next.Restore(State{Trees: []TreeState{{Of: 2, Leader: Process{PID: 1 << 22}, Members: []Process{other}, Phase: int(killed)}}}, 0, "", time.Now())
	if !next.Idle() || !w.alive(w.all[0]) {
		t.Error("the wrong process was killed")
	}
	m := member{Process: other}
	if m.signal(unix.SIGKILL) || m.err != unix.ESRCH || !w.alive(w.all[0]) {
		t.Errorf("the wrong process was killed: %v", m.err)
	}
}

// The next master goes on where the one before was.
func TestRestore(t *testing.T) {
	w := start(t, "stays", "s", "leaves", "se", "deaf")
	w.ends()
	now := time.Now()
	w.End(1, End{Grace: time.Minute}, now)
	s := w.State()
	w.next()
	w.Restore(s, os.Getpid(), instance, now)
	if w.Idle() || !w.Tracker.Deadline().Equal(now.Add(time.Minute)) {
		t.Fatalf("%+v of %+v", w.State(), s)
	}
	w.Tick(now.Add(time.Minute))
	w.awaitIdle()
}

func TestRestoreOfOneThatLives(t *testing.T) {
	w := start(t, "stays", "s", "deaf")
	now := time.Now()
	w.Look(1)
	s := w.State()
	w.next()
	w.Restore(s, os.Getpid(), instance, now)
	w.Started(1, w.cmd.Process.Pid)
	if left := w.ends(); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
	w.End(1, End{}, now)
	w.Tick(now)
	w.awaitIdle()
}

// What cannot be ended is said, once, and is waited for no longer.
func TestCannotBeEnded(t *testing.T) {
	w := start(t, "stays", "s", "deaf")
	w.ends()
	now := time.Now()
	w.End(1, End{}, now)
	tr := w.tree(1)
	tr.phase, tr.at = killed, now.Add(endTimeout)
	tr.members[0].err = unix.EPERM
	w.Notices()
	w.Tick(now.Add(endTimeout))
	w.want(w.said(), []string{" 1: it runs as another user, which handoff may not signal"})
	if !w.Idle() {
		t.Error("it is waited for")
	}
}

// What is to follow when nothing is left of a worker follows then, and not before.
func TestWhenGone(t *testing.T) {
	w := start(t, "stays", "", "deaf")
	if w.WhenGone(7, func() { t.Error("of nobody") }) {
		t.Error("there is no worker 7")
	}
	gone := false
	w.ends()
	now := time.Now()
	w.End(1, End{Grace: time.Minute}, now)
	if !w.WhenGone(1, func() { gone = true }) || gone {
		t.Fatal("its child ignores SIGTERM, and is said to be gone")
	}
	w.Tick(now.Add(time.Minute))
	w.awaitIdle()
	if !gone {
		t.Error("nothing is left, and nothing follows")
	}
}
