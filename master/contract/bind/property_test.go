package bind

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/bindprop"
	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/master/contract"
	"handoff/master/contract/contracttest"
	"handoff/master/listeners"
)

var (
	steps = flag.Int("steps", 0, "steps of TestProperty; 0: a few scripts")
	seed  = flag.Uint64("seed", 0, "its first seed; 0: by the clock, with -steps")
	about = flag.String("about", "", "which kinds of sockets: tcp, mptcp, udp or unix; any")
	file  = flag.String("script", "", "a file with one script, or two with a line \"then\" between them")
	once  = flag.Bool("once", false, "only that seed")
)

// insideWord: the test runs in a network namespace of its own. Its value is the program.
const insideWord = "BIND_PROPERTY_PROGRAM"

// folderWord: and this is the package's folder.
const folderWord = "BIND_PROPERTY_FOLDER"

// TestProperty compares scripts of socket calls bare and under this contract, with the real
// interception and a real table: see package bindprop. It performs those of testdata/property,
// which differed once, and some random ones, with the same seeds each time; -steps takes others.
//
//	go test ./master/contract/bind -run TestProperty -v -steps 1000000 -timeout 5h
//	go test ./master/contract/bind -run TestProperty -v -seed 7 -once
func TestProperty(t *testing.T) {
	if program := os.Getenv(insideWord); program != "" {
		inside(t, program)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs a network namespace of its own: root")
	}
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := bindprop.Build(dir)
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skip("no C compiler")
	} else if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"netns", "/proc/self/exe", "-test.run=^TestProperty$"}, os.Args[1:]...)...)
	if self, err := os.Executable(); err == nil {
		cmd.Args[2] = self
	}
	cmd.Args = append(cmd.Args, "-test.run=^TestProperty$", "-test.testlogfile=")
	cmd.Env = append(os.Environ(), insideWord+"="+program, folderWord+"="+folder)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

// inside performs pairs.
func inside(t *testing.T, program string) {
	s := &sides{t: t, program: program, dir: filepath.Dir(program), known: map[string]int{}}
	s.start()
	began := time.Now()
	random := uint64(began.UnixNano()) % 1e12
	switch {
	case *file != "":
		s.compare(*file, parse(t, *file))
	case *once:
		s.random(*seed)
	case *steps == 0:
		s.few()
	default:
		if *seed != 0 {
			random = *seed
		}
		t.Logf("from seed %d on", random)
		for ; s.steps < *steps; random++ {
			s.random(random)
		}
	}
	t.Logf("%d steps in %d pairs of scripts, %v", s.steps, s.compared, time.Since(began).Round(time.Second))
	for _, k := range bindprop.Differences() {
		if s.known[k.Name] > 0 {
			t.Logf("%8d × %s", s.known[k.Name], k.Name)
		}
	}
}

// few are the pairs of each go test.
func (s *sides) few() {
	files, err := filepath.Glob(filepath.Join(os.Getenv(folderWord), "testdata/property/*.txt"))
	if err != nil || len(files) == 0 {
		s.t.Fatal("no scripts: ", err)
	}
	for _, f := range files {
		s.compare(filepath.Base(f), parse(s.t, f))
	}
	for i := range uint64(12) {
		for _, about := range []string{"tcp", "udp", "unix"} {
			s.compare(fmt.Sprint(about, ", seed ", i), bindprop.Generate(i, about))
		}
	}
}

func (s *sides) random(seed uint64) {
	s.compare(fmt.Sprint("seed ", seed), bindprop.Generate(seed, *about))
}

// compare performs a pair, and reports what is different. What is so only once has had a
// machine that was too slow.
func (s *sides) compare(name string, p bindprop.Pair) {
	s.steps += p.Steps()
	s.compared++
	failing := s.differences(p, s.known)
	if len(failing) == 0 {
		return
	}
	again := s.differences(p, nil)
	failing = slices.DeleteFunc(failing, func(d bindprop.Difference) bool {
		return !slices.ContainsFunc(again, func(o bindprop.Difference) bool { return o.Kind() == d.Kind() })
	})
	if len(failing) == 0 {
		s.t.Logf("%s differed once, and not again", name)
		return
	}
	s.report(name, p, failing)
}

// parse reads scripts as they are printed.
func parse(t *testing.T, file string) bindprop.Pair {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script := func(text string) (s bindprop.Script) {
		for l := range strings.Lines(text) {
			if l = strings.TrimSpace(l); l != "" {
				s = append(s, l)
			}
		}
		return s
	}
	first, second, ok := strings.Cut(string(b), "then\n")
	if !ok {
		second = first
	}
	return bindprop.Pair{First: script(first), Second: script(second)}
}

// sides are both: bare, and under the contract.
type sides struct {
	t        *testing.T
	program  string
	dir      string
	bare     *bindprop.Bare
	under    *underSide
	pairs    int // performed
	steps    int
	compared int
	known    map[string]int  // differences, by name
	reported map[string]bool // kinds of differences
	differs  bool
}

func (s *sides) start() {
	t := s.t
	s.reported = map[string]bool{}
	var err error
	if s.bare, err = bindprop.NewBare(s.program, s.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.bare.Close)
	s.under = &underSide{}
	path := filepath.Join(s.dir, "under")
	control, err := bindprop.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(control.Close)
	runner := func(name string) *bindprop.Runner {
		r, err := control.Runner(name)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for i, name := range []string{"one", "two"} {
		s.under.filters[i] = filteredProgram(t, s.program, []string{"runner", path, name})
		s.under.runners[i] = runner(name)
	}
	spawn(t, exec.Command(s.program, "runner", path, "prober"))
	if s.under.prober, err = runner("prober").Leader(); err != nil {
		t.Fatal(err)
	}
}

func spawn(t *testing.T, cmd *exec.Cmd) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// filteredProgram starts a runner behind the filter, and returns its notification descriptor.
func filteredProgram(t *testing.T, program string, args []string) int {
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = bindintercept.Args(3, 0, bindintercept.Conditions{}, program, append([]string{"program"}, args...))
	cmd.ExtraFiles = []*os.File{theirs}
	spawn(t, cmd)
	theirs.Close()
	fd, refused, err := bindintercept.ReadFilter(ours)
	if refused != 0 {
		t.Skip("the kernel refuses a seccomp notification filter: ", refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// perform runs a pair on both sides at once.
func (s *sides) perform(p bindprop.Pair) (bare, under bindprop.Report) {
	s.pairs++
	base := 10000 + s.pairs%2400*16
	var both sync.WaitGroup
	var err1, err2 error
	both.Go(func() { bare, err1 = bindprop.Perform(s.bare, p, s.dir, base) })
	s.t.Run("", func(t *testing.T) {
		s.under.begin(t)
		done := false
		go func() {
			under, err2 = bindprop.Perform(s.under, p, s.dir, base)
			s.under.world.Post(func() { done = true })
		}()
		s.under.world.Until("script", func() bool {
			// Who a call waits for does nothing meanwhile: it has waited for as long as it may.
			s.under.world.contract.Tick(time.Now().Add(maxWait))
			return done
		})
	})
	if s.t.Failed() && !s.differs {
		s.t.Fatalf("%q", p)
	}
	both.Wait()
	if err := errors.Join(err1, err2); err != nil {
		s.t.Fatalf("%v\n%q", err, p)
	}
	return bare, under
}

func (s *sides) differences(p bindprop.Pair, known map[string]int) (failing []bindprop.Difference) {
	bare, under := s.perform(p)
	for _, d := range bindprop.Compare(bare, under) {
		if d.Known == nil {
			failing = append(failing, d)
		} else if known != nil {
			known[d.Known.Name]++
		}
	}
	return failing
}

// report shrinks a pair that differs, and prints it.
func (s *sides) report(name string, p bindprop.Pair, failing []bindprop.Difference) {
	kind := failing[0].Kind()
	if s.differs = true; s.reported[kind] {
		s.t.Errorf("%s: %s, again", name, kind)
		return
	}
	s.reported[kind] = true
	p = bindprop.Shrink(p, func(p bindprop.Pair) bool {
		for _, d := range s.differences(p, nil) {
			if d.Kind() == kind {
				return true
			}
		}
		return false
	})
	text := fmt.Sprintf("%s: %s\n", name, kind)
	for _, step := range p.First {
		text += "\t" + step + "\n"
	}
	if fmt.Sprint(p.First) != fmt.Sprint(p.Second) {
		text += "    then\n"
		for _, step := range p.Second {
			text += "\t" + step + "\n"
		}
	}
	left := s.differences(p, nil)
	for _, d := range left[:min(8, len(left))] {
		text += "  " + d.String() + "\n"
	}
	if len(left) > 8 {
		text += fmt.Sprintf("  and %d more\n", len(left)-8)
	}
	s.t.Error(text)
}

// underSide is the contract, with a table of its own for each pair. Perform runs in a
// goroutine of its own; what is the loop's, the loop does.
type underSide struct {
	runners  [2]*bindprop.Runner
	filters  [2]int
	prober   *bindprop.Leader
	world    *world
	sessions [2]*Session
	served   [2]chan struct{}
}

func (u *underSide) begin(t *testing.T) {
	u.world = &world{Loop: contracttest.New(t)}
	u.world.Serves = map[listeners.Worker]bool{}
	u.world.contract = New(private{u.world.Loop}, true)
	u.world.Queued = u.world.contract.Queued
}

// private is the loop, with ports that the kernel chooses to each worker (no --hold 0).
type private struct{ *contracttest.Loop }

func (p private) Holds(a netip.AddrPort) bool { return a.Port() != 0 }

// loop has the loop do f.
func (u *underSide) loop(f func() error) error {
	done := make(chan error, 1)
	u.world.Post(func() { done <- f() })
	return <-done
}

func (u *underSide) Begin() error             { return nil }
func (u *underSide) Prober() *bindprop.Leader { return u.prober }
func (u *underSide) Bare() bool               { return false }

func (u *underSide) Finish() error {
	return u.loop(func() error {
		for g, s := range u.sessions {
			if s != nil {
				u.sessions[g] = nil
				s.listener.Close()
				s.End()
			}
		}
		return nil
	})
}

func (u *underSide) Start(g int) (*bindprop.Leader, error) {
	l, err := u.runners[g-1].Leader()
	if err != nil {
		return nil, err
	}
	return l, u.loop(func() error {
		pending, err := bindintercept.NewPendingCalls()
		if err != nil {
			return err
		}
		id := listeners.Worker(g)
		took := map[string]int{fdstore.Filter: -1, fdstore.Calls: pending}
		if took[fdstore.Filter], err = unix.FcntlInt(uintptr(u.filters[g-1]), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return err
		}
		worker := u.world.Worker(id, 0, l.PID)
		worker.Gen = g
		s, err := u.world.contract.Restore(worker, contract.State{}, func(what string) int {
			if fd, ok := took[what]; ok {
				return fd
			}
			return -1
		})
		if err != nil {
			return err
		}
		u.sessions[g-1] = s.(*Session)
		u.sessions[g-1].restored = false // it is the first one of this worker
		u.world.Sessions[id] = s
		served := make(chan struct{})
		u.served[g-1] = served
		go func() { // ends with the listener
			s.Serve()
			close(served)
		}()
		return nil
	})
}

// Serve looks at what the worker has open still, as the master does (package serving).
func (u *underSide) Serve(g int) error {
	return u.loop(func() error {
		s := u.sessions[g-1]
		for _, on := range u.world.Table.AcceptsOn(s.ID) {
			if on.Inode != 0 && !s.hasOpen(s.PID, on.Inode) {
				u.world.Table.NotOpen(s.ID, on.Inode, time.Now())
			}
		}
		u.world.Serves[listeners.Worker(g)] = true
		u.world.Table.SetTargets([]listeners.Worker{listeners.Worker(g)})
		u.world.Steer()
		return nil
	})
}

func (u *underSide) End(g int, l *bindprop.Leader) error {
	if err := l.End(); err != nil {
		return err
	}
	return u.loop(func() error {
		s := u.sessions[g-1]
		u.sessions[g-1] = nil
		s.listener.Close()
		s.Died()
		u.world.Table.ReleaseAll(s.ID, time.Now())
		s.End()
		delete(u.world.Sessions, s.ID)
		if g == 2 {
			u.world.Table.CloseAll() // the service has stopped
			return nil
		}
		later := time.Now().Add(time.Hour) // an address that nobody wants any more is closed
		u.world.Table.Tick(later)
		for _, n := range u.world.Table.Notices() {
			if n, ok := n.(listeners.Unused); ok {
				u.world.Table.CloseUnused(n.Address)
			}
		}
		return nil
	})
}
