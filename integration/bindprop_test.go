package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"handoff/internal/bindprop"
)

// TestBareAndUnder runs random scripts of socket calls bare and under a real handoff, as
// its first generation and as a second one beside it, and compares all that they see:
// package bindprop, of which master/contract/bind has the run with a million steps.
func TestBareAndUnder(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs network namespaces of its own: root")
	}
	if !*long && os.Getenv("BIND_SEED") == "" {
		t.Skip("-long") // until the contract is the new one
	}
	dir := t.TempDir()
	program, err := bindprop.Build(dir)
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skip("no C compiler")
	} else if err != nil {
		t.Fatal(err)
	}
	bare, err := bindprop.NewBare(program, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Close)
	seed, _ := strconv.ParseUint(os.Getenv("BIND_SEED"), 10, 64)
	n, size := times(400, 8), times(20, 8)
	if seed != 0 {
		n, size = 1, 1
	}
	steps, known := 0, map[string]int{}
	for at := 0; at < n; at += size {
		var pairs []bindprop.Pair
		for i := range size {
			pairs = append(pairs, alone(bindprop.Generate(seed+uint64(at+i), "")))
			steps += pairs[i].Steps()
		}
		for i, list := range runBatch(t, bare, program, pairs, 10000+at%1000*24) {
			for _, d := range list {
				if d.Known == nil {
					t.Errorf("seed %d: %v\n%q", seed+uint64(at+i), d, pairs[i])
					break
				}
				known[d.Known.Name]++
			}
		}
	}
	t.Logf("%d steps in %d pairs of scripts; %v", steps, n, known)
}

// alone is a pair without looks into the kernel's tables, where others of the batch are seen.
func alone(p bindprop.Pair) bindprop.Pair {
	without := func(s bindprop.Script) bindprop.Script {
		return slices.DeleteFunc(slices.Clone(s), func(step string) bool { return strings.HasSuffix(step, " net") })
	}
	return bindprop.Pair{First: without(p.First), Second: without(p.Second)}
}

// runBatch runs pairs beside each other in the workers of one handoff, and returns what
// differs.
func runBatch(t *testing.T, bare *bindprop.Bare, program string, pairs []bindprop.Pair, base int) [][]bindprop.Difference {
	t.Helper()
	dir := t.TempDir()
	b := &batch{members: len(pairs), main: make(chan func())}
	var err error
	path := filepath.Join(dir, "control")
	if b.control, err = bindprop.Listen(path); err != nil {
		t.Fatal(err)
	}
	defer b.control.Close()
	b.w = launch(t, options{flags: []string{"-n", "1", "--contract", "bind", "--drain-timeout", "60s"},
		app: []string{program, "runner", path, "worker"}, behind: []string{program, "netns"}, dir: dir, binary: binary})
	b.runners[0] = b.runner(t, "worker")
	b.w.await("worker.started")
	spawnProgram(t, exec.Command(program, "in", strconv.Itoa(b.w.pid()), program, "runner", path, "prober"))
	b.probers = b.runner(t, "prober")

	differ, errs := make([][]bindprop.Difference, len(pairs)), make([]error, len(pairs))
	var all sync.WaitGroup
	var one sync.Mutex // is performed bare
	for i, p := range pairs {
		all.Go(func() {
			under, err := bindprop.Perform(&realSide{batch: b}, p, dir, base+i*16)
			one.Lock()
			defer one.Unlock()
			alone, err2 := bindprop.Perform(bare, p, dir, base+i*16)
			errs[i] = errors.Join(err, err2)
			differ[i] = bindprop.Compare(alone, under)
		})
	}
	go func() { all.Wait(); close(b.main) }()
	for f := range b.main {
		f()
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	b.runners[1].Close()
	b.w.stop()
	return differ
}

// batch is one handoff with several pairs. Its fields but the members belong to the test's
// goroutine.
type batch struct {
	w       *world
	control *bindprop.Control
	runners [2]*bindprop.Runner
	probers *bindprop.Runner
	main    chan func()

	members int          // that have not finished
	waiting []chan error // for all of them
	next    func() error // to be done when all are there
}

func (b *batch) runner(t *testing.T, name string) *bindprop.Runner {
	t.Helper()
	r, err := b.control.Runner(name)
	if err != nil {
		b.w.stacks()
		t.Fatal(err)
	}
	return r
}

// do has the test's goroutine do f.
func (b *batch) do(f func() error) error {
	done := make(chan error, 1)
	b.main <- func() { done <- f() }
	return <-done
}

// meet waits until all are there, and something is done.
func (b *batch) meet(f func() error) error {
	done := make(chan error, 1)
	b.main <- func() {
		b.waiting, b.next = append(b.waiting, done), f
		b.met()
	}
	return <-done
}

func (b *batch) met() {
	if len(b.waiting) < b.members || b.members == 0 {
		return
	}
	err := b.next()
	for _, c := range b.waiting {
		c <- err
	}
	b.waiting = nil
}

// realSide is one pair in the workers of a handoff.
type realSide struct {
	*batch
	prober *bindprop.Leader
}

func (s *realSide) Begin() error {
	return s.do(func() (err error) {
		s.prober, err = s.probers.Leader()
		return err
	})
}

func (s *realSide) Start(g int) (l *bindprop.Leader, err error) {
	if g == 2 {
		err = s.meet(func() error {
			s.w.signal(syscall.SIGUSR2)
			s.w.await("worker.started")
			s.runners[1] = s.batch.runner(s.w.t, "worker")
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	err = s.do(func() (err error) {
		l, err = s.runners[g-1].Leader()
		return err
	})
	return l, err
}

func (s *realSide) Serve(g int) error {
	return s.meet(func() error {
		if err := s.runners[g-1].Serve("127.0.0.1", 9000); err != nil {
			return fmt.Errorf("generation %d: %w", g, err)
		}
		if g == 1 {
			s.w.await("cluster.started")
		} else {
			s.w.await("cluster.reloaded")
		}
		return nil
	})
}

func (s *realSide) End(g int, l *bindprop.Leader) error {
	err := s.do(l.End)
	if g == 1 && err == nil {
		err = s.meet(func() error {
			s.runners[0].Close()
			s.w.retired(1)
			return nil
		})
	}
	return err
}

func (s *realSide) Finish() error {
	return s.do(func() error {
		s.members--
		s.met()
		return s.prober.End()
	})
}

func (s *realSide) Prober() *bindprop.Leader { return s.prober }
func (s *realSide) Bare() bool               { return false }

func spawnProgram(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}
