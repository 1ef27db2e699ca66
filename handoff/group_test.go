package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/load"
)

// owner is the goroutine that owns a group in these tests, as the master's
// loop does in earnest.
type owner struct {
	t      *testing.T
	group  *Group
	watch  *Watch
	do     chan func() // closed by stop
	arrive atomic.Int64
	strays atomic.Int64 // connections that came to a parked socket
	done   chan struct{}
}

func own(t *testing.T, cfg Config) *owner {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Watch = w
	if !cfg.Addr.IsValid() {
		cfg.Addr = netip.MustParseAddrPort("127.0.0.1:0")
	}
	g, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{t: t, group: g, watch: w, do: make(chan func()), done: make(chan struct{})}
	signals := make(chan struct{}) // closed when the watch is
	go func() {                    // ends when the watch is closed
		defer close(signals)
		for w.Wait() == nil {
			signals <- struct{}{}
		}
	}()
	go o.loop(signals)
	t.Cleanup(o.stop)
	return o
}

func (o *owner) loop(signals <-chan struct{}) {
	defer close(o.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if d := o.group.Deadline(); d.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(d))
		}
		select {
		case f, ok := <-o.do:
			if !ok {
				o.group.Close()
				o.watch.Close()
				for range signals {
				}
				return
			}
			f()
		case <-signals:
			for _, s := range o.watch.Collect() {
				switch {
				case s.Hup:
					if _, err := o.group.Mend(s.Socket); err != nil {
						o.t.Log(err)
					}
				case !s.Socket.Held():
					o.strays.Add(1)
				default:
					o.arrive.Add(1)
					o.group.Arrived(time.Now())
				}
			}
		case now := <-timer.C:
			o.group.Tick(now)
		}
	}
}

func (o *owner) stop() { close(o.do); <-o.done }

// call runs f in the owner's goroutine.
func (o *owner) call(f func()) {
	done := make(chan struct{})
	o.do <- func() { defer close(done); f() }
	<-done
}

// server is a worker: it has a duplicate of a socket and answers HTTP.
type server struct {
	o        *owner
	socket   *Socket
	slot     int
	listener net.Listener
	served   atomic.Int64
	stall    atomic.Pointer[chan struct{}] // while set, nothing is accepted
	wg       sync.WaitGroup
}

func (o *owner) serve(slot, generation int) *server {
	o.t.Helper()
	s := &server{o: o, slot: slot}
	var fd int
	o.call(func() {
		var err error
		if s.socket, err = o.group.Take(slot); err != nil {
			o.t.Error(err)
			return
		}
		fd, err = unix.FcntlInt(uintptr(s.socket.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			o.t.Error(err)
		}
	})
	f := os.NewFile(uintptr(fd), "listener")
	ln, err := net.FileListener(f)
	if err != nil {
		o.t.Fatal(err)
	}
	f.Close()
	s.listener = ln
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nX-Generation: %d\r\nX-Slot: %d\r\n\r\nok", generation, slot))
	s.wg.Go(func() {
		for {
			if gate := s.stall.Load(); gate != nil {
				<-*gate
			}
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					s.served.Add(1)
					c.Write(answer)
				}
			})
		}
	})
	return s
}

// leave ends the worker; what it has accepted it answers.
func (s *server) leave() {
	s.listener.Close()
	s.wg.Wait()
	s.o.call(func() { s.o.group.Release(s.socket) })
}

func (o *owner) generation(slots, generation int) []*server {
	var servers []*server
	for slot := range slots {
		servers = append(servers, o.serve(slot, generation))
	}
	return servers
}

func (o *owner) steer(servers []*server) {
	o.t.Helper()
	seats := make([]*Socket, len(servers))
	for i, s := range servers {
		if s != nil {
			seats[i] = s.socket
		}
	}
	o.call(func() {
		if err := o.group.Steer(seats); err != nil {
			o.t.Error(err)
		}
	})
}

// quiet waits until nothing more can come to sockets that are steered away.
func (o *owner) quiet(servers []*server) {
	o.t.Helper()
	var sockets []*Socket
	for _, s := range servers {
		sockets = append(sockets, s.socket)
	}
	q := o.group.Quiet(time.Now(), 0, sockets...)
	for patience := time.Now().Add(5 * time.Second); ; {
		ok, again := q.Look(time.Now())
		if ok {
			return
		}
		if time.Now().After(patience) {
			o.t.Fatal("not quiet in 5 s")
		}
		<-time.After(again)
	}
}

func (o *owner) load(cfg load.Config) *load.Run {
	cfg.Addr = o.group.Addr().String()
	return load.Start(cfg)
}

func zero(t *testing.T, r load.Result) {
	t.Helper()
	t.Log(r)
	if r.Lost() != 0 {
		t.Errorf("%d requests lost", r.Lost())
	}
}

func handovers(t *testing.T, cfg Config, n int) {
	o := own(t, cfg)
	live := o.generation(4, 1)
	o.steer(live)
	run := o.load(load.Config{Clients: 32})
	for i := range n {
		next := o.generation(4, i+2)
		o.steer(next)
		o.quiet(live)
		for _, s := range live {
			s.leave()
		}
		live = next
	}
	r := run.Stop()
	if cfg.NoProgram {
		// Both generations accept from the same sockets while they overlap.
		delete(r.Failed, load.Order)
		r.Samples = nil
	}
	zero(t, r)
	if n := len(o.group.order); !o.group.hash && n > 8 {
		t.Errorf("%d sockets after %d handovers, parked ones are not used again", n, n)
	}
	for _, s := range live {
		s.leave()
	}
}

func count(long, short int) int {
	if testing.Short() {
		return short
	}
	return long
}

func TestHandoversLoseNothing(t *testing.T) { handovers(t, Config{}, count(1000, 100)) }
func TestStickyHandoversLoseNothing(t *testing.T) {
	handovers(t, Config{Balance: Sticky}, count(200, 30))
}

// Without the program a slot's socket goes from worker to worker.
func TestHandoversWithoutProgram(t *testing.T) {
	handovers(t, Config{NoProgram: true}, count(200, 30))
}

func TestGrowAndShrinkLoseNothing(t *testing.T) {
	o := own(t, Config{})
	live := o.generation(4, 1)
	o.steer(live)
	run := o.load(load.Config{Clients: 32})
	for range count(200, 30) {
		extra := o.serve(4, 1)
		o.steer(append(live[:4:4], extra))
		run.Await(20, 5*time.Second)
		// The one in the middle leaves, the new one takes its seat.
		out := live[2]
		live[2] = extra
		o.steer(live)
		o.quiet([]*server{out})
		out.leave()
	}
	zero(t, run.Stop())
	for _, s := range live {
		s.leave()
	}
}

// A generation switch is one instant: no new connection made after an answer
// of the new generation is answered by the old one.
func TestSwitchIsAtomic(t *testing.T) {
	o := own(t, Config{})
	old := o.generation(4, 1)
	o.steer(old)
	run := o.load(load.Config{Clients: 16})
	run.Await(200, 5*time.Second)
	for g := 2; g < 40; g++ {
		next := o.generation(4, g)
		o.steer(next)
		run.Await(50, 5*time.Second)
		o.quiet(old)
		for _, s := range old {
			s.leave()
		}
		old = next
	}
	zero(t, run.Stop()) // class Order is among the failures
	for _, s := range old {
		s.leave()
	}
}

func TestSpread(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Rate: 2500})
	run.Await(int64(count(50_000, 15_000)), time.Minute)
	r := run.Stop()
	zero(t, r)
	counts := make([]int64, 4)
	for i, w := range workers {
		counts[i] = w.served.Load()
		w.leave()
	}
	t.Logf("served %v, programs %d", counts, o.group.Steered())
	if s := load.Spread(counts); s > 0.05 {
		t.Errorf("spread %.1f%% over idle-equal workers, want at most 5%%", 100*s)
	}
}

func TestStallIsSteeredAround(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Rate: 1000})
	// One of four stops accepting for 200 ms in each second.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		second := time.NewTicker(time.Second)
		defer second.Stop()
		for {
			gate := make(chan struct{})
			workers[0].stall.Store(&gate)
			time.AfterFunc(200*time.Millisecond, func() {
				workers[0].stall.Store(nil)
				close(gate)
			})
			select {
			case <-second.C:
			case <-stop:
				<-gate
				return
			}
		}
	})
	run.Await(int64(count(20_000, 4000)), time.Minute)
	r := run.Stop()
	close(stop)
	wg.Wait()
	zero(t, r)
	// With the race detector on a busy machine the test's own goroutines are
	// late by milliseconds: the short run tells steering from no steering.
	if p99, most := r.Quantile(99), float64(count(5, 40)); p99 > most {
		t.Errorf("p99 of new connections %.1f ms, want under %.0f ms (the kernel's hash: 156 ms)", p99, most)
	}
	for _, w := range workers {
		w.leave()
	}
}

// A stopped worker delays only what was queued at it when it was found out.
func TestStoppedWorkerDelaysOnlyItsQueue(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Rate: 500, Timeout: 2 * time.Second})
	run.Await(200, 5*time.Second)
	gate := make(chan struct{})
	workers[3].stall.Store(&gate)
	run.Await(2500, 20*time.Second)
	r := run.Stop()
	t.Log(r)
	late := r.Failed[load.Timeout]
	if late > 12 || r.Lost() != late {
		t.Errorf("%d requests waited for the stopped worker, want those of its first 20 ms only", r.Lost())
	}
	var away []int
	o.call(func() { away = o.group.Away() })
	if len(away) != 1 || away[0] != 3 {
		t.Errorf("steered away: %v, want slot 3", away)
	}
	close(gate)
	for _, w := range workers {
		w.leave()
	}
}

// Nothing wakes the owner while no connection comes: after one connection
// there is one arrival, the ticks that it causes end, and the sockets are
// armed again.
func TestNoTicksWhenIdle(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(2, 1)
	o.steer(workers)
	for i := range 3 {
		run := o.load(load.Config{Clients: 1})
		run.Await(1, 5*time.Second)
		zero(t, run.Stop())
		for {
			var armed bool
			var next time.Time
			o.call(func() { armed, next = o.group.armed, o.group.next })
			if armed {
				if !next.IsZero() {
					t.Fatalf("round %d: at rest, and a deadline at %v", i, next)
				}
				break
			}
		}
	}
	for _, w := range workers {
		w.leave()
	}
}

func TestStickyKeepsAClientAtItsSlot(t *testing.T) {
	o := own(t, Config{Balance: Sticky, Addr: netip.MustParseAddrPort("0.0.0.0:0")})
	var sources []net.IP
	for i := range 250 {
		sources = append(sources, net.IPv4(127, 0, 1, byte(i+1)))
	}
	port := strconv.Itoa(int(o.group.Addr().Port()))
	ask := func() []string {
		slots := make([]string, len(sources))
		var mu sync.Mutex
		run := load.Start(load.Config{Addr: "127.0.0.1:" + port, Clients: len(sources), Sources: sources,
			Observe: func(c int, h http.Header) { mu.Lock(); slots[c] = h.Get("X-Slot"); mu.Unlock() }})
		run.Await(3*int64(len(sources)), 10*time.Second)
		zero(t, run.Stop())
		return slots
	}
	old := o.generation(4, 1)
	o.steer(old)
	first := ask()
	counts := make([]int64, 4)
	for _, s := range first {
		n, _ := strconv.Atoi(s)
		counts[n]++
	}
	t.Logf("clients of each slot: %v", counts)
	if load.Spread(counts) > 0.4 {
		t.Errorf("250 clients spread %v", counts)
	}
	next := o.generation(4, 2)
	o.steer(next)
	o.quiet(old)
	for _, s := range old {
		s.leave()
	}
	if moved := differ(first, ask()); moved != 0 {
		t.Errorf("%d clients changed their slot in a reload", moved)
	}
	// Slot 2 goes dark: its clients move, nobody else.
	o.steer([]*server{next[0], next[1], nil, next[3]})
	for i, s := range ask() {
		if first[i] == "2" && s == "2" || first[i] != "2" && s != first[i] {
			t.Errorf("client %d of slot %s is at %s while slot 2 is dark", i, first[i], s)
		}
	}
	// A fifth slot takes about a fifth.
	next = append(next, o.serve(4, 2))
	o.steer(next)
	if moved := differ(first, ask()); moved == 0 || moved > 80 {
		t.Errorf("%d of 250 clients moved from 4 slots to 5, want about 50", moved)
	}
	for _, s := range next {
		s.leave()
	}
}

func differ(a, b []string) int {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func TestSecondInstanceIsRefused(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(2, 1)
	_, err := Listen(Config{Addr: o.group.Addr(), Watch: o.watch})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second group on %v: %v, want EADDRINUSE", o.group.Addr(), err)
	}
	for _, w := range workers {
		w.leave()
	}
}

// A rogue worker ends its listening socket for everybody; it is noticed by an
// event, mended, and the record of the kernel's order follows.
func TestShutdownByAWorkerIsMended(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Clients: 8})
	for round := range 8 {
		victim := workers[round%4]
		var before uint64
		o.call(func() { before = o.group.Steered() })
		unix.Shutdown(victim.socket.FD(), unix.SHUT_RDWR)
		for patience := time.Now().Add(10 * time.Second); ; {
			var listening bool
			var steered uint64
			o.call(func() { listening, steered = victim.socket.listening(), o.group.Steered() })
			if listening && steered > before {
				break
			}
			if time.Now().After(patience) {
				t.Fatalf("round %d: listening %v, steered %d, before %d", round, listening, steered, before)
			}
		}
		// net.Listener gave up at the error; a fresh one stands for a
		// worker that goes on.
		victim.leave()
		workers[round%4] = o.serve(victim.slot, 1)
		o.steer(workers)
		run.Await(50, 5*time.Second)
	}
	r := run.Stop()
	// What was queued at the socket at that instant is the rogue's doing.
	if n := r.Failed[load.Timeout] + r.Failed[load.Order] + r.Failed[load.Other] + r.Failed[load.Status]; n > 0 {
		t.Error(r)
	}
	for i, w := range workers {
		if w.served.Load() == 0 {
			t.Errorf("slot %d got nothing: the record does not match the kernel's order", i)
		}
		w.leave()
	}
}

// Nobody accepts here: an accept(2) that finds O_NONBLOCK cleared waits in the
// kernel, where no Close of Go's reaches it.
func TestNonblockIsMended(t *testing.T) {
	o := own(t, Config{})
	var socket *Socket
	var wrongs []string
	o.call(func() { socket, _ = o.group.Take(0) })
	unix.SetNonblock(socket.FD(), false)
	o.call(func() { wrongs, _ = o.group.Mend(socket) })
	if len(wrongs) != 1 {
		t.Errorf("reported %q, want the cleared O_NONBLOCK", wrongs)
	}
	if flags, _ := unix.FcntlInt(uintptr(socket.FD()), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("O_NONBLOCK is still clear")
	}
	unix.Listen(socket.FD(), 511) // as Node does
	o.call(func() { wrongs, _ = o.group.Mend(socket) })
	if _, backlog, _ := socket.queue(); backlog != o.group.backlog || len(wrongs) != 0 {
		t.Errorf("backlog %d, want %d; reported %q", backlog, o.group.backlog, wrongs)
	}
	o.call(func() { o.group.Release(socket) })
}

// A connection that is left at a parked socket is reported, and can be taken
// from it.
func TestStrayIsReported(t *testing.T) {
	o := own(t, Config{})
	live := o.serve(1, 1)
	var parked *Socket
	o.call(func() {
		parked, _ = o.group.Take(0) // and nobody accepts
		o.group.Steer([]*Socket{parked})
	})
	c, err := net.Dial("tcp", o.group.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o.call(func() {
		o.group.Steer([]*Socket{nil, live.socket})
		o.group.Release(parked)
	})
	for patience := time.Now().Add(5 * time.Second); o.strays.Load() == 0; {
		if time.Now().After(patience) {
			t.Fatal("a connection at a parked socket is not reported")
		}
		<-time.After(time.Millisecond)
	}
	fd, err := parked.Accept()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	live.leave()
}

// The same, as nobody: nothing here needs a privilege.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("already unprivileged")
	}
	asNobody(t, "^(TestHandoversLoseNothing|TestGrowAndShrinkLoseNothing|TestStickyKeepsAClientAtItsSlot|TestSecondInstanceIsRefused)$")
}
