package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
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
	once   sync.Once
	events chan Event    // what has happened, but for the first
	done   chan struct{} // closed when the owner has ended
	join   bool          // workers bring sockets of their own
}

func own(t *testing.T, cfg Config) *owner {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = netip.MustParseAddrPort("127.0.0.1:0")
	}
	g, err := w.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, w, g)
}

func run(t *testing.T, w *Watch, g *Group) *owner {
	o := &owner{t: t, group: g, watch: w, do: make(chan func()), events: make(chan Event, 1000), done: make(chan struct{})}
	go func() { // ends with stop
		defer close(o.done)
		w.Run(o.do, func(e Event) { o.events <- e })
	}()
	t.Cleanup(o.stop)
	return o
}

func (o *owner) stop() { o.once.Do(func() { close(o.do) }); <-o.done }

// await returns the next event of a type.
func await[E Event](o *owner) (e E) {
	o.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-o.events:
			if e, ok := got.(E); ok {
				return e
			}
		case <-timeout:
			o.t.Fatalf("no %T", e)
		}
	}
}

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

// socket is a worker's: the group's, or its own.
func (o *owner) socket(slot int) (*Socket, error) {
	if !o.join || o.group.Waits(slot) {
		return o.group.Take(slot)
	}
	fd, err := bind(o.group.Addr(), false, false, traits{})
	if err != nil {
		return nil, err
	}
	return o.group.Join(fd, slot)
}

func (o *owner) serve(slot, generation int) *server {
	o.t.Helper()
	s := &server{o: o, slot: slot}
	var fd int
	o.call(func() {
		var err error
		if s.socket, err = o.socket(slot); err != nil {
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
	s.o.call(func() { s.socket.Release() })
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
	targets := make([]*Socket, len(servers))
	for i, s := range servers {
		if s != nil {
			targets[i] = s.socket
		}
	}
	o.call(func() {
		if err := o.group.Steer(targets); err != nil {
			o.t.Error(err)
		}
	})
}

// quiet waits until nothing more can come to sockets that are steered away.
func (o *owner) quiet(servers []*server) {
	o.t.Helper()
	timeout := time.Now().Add(20 * time.Second)
	for _, s := range servers {
		q := s.socket.Quiet(time.Now(), 0)
		for {
			var ok bool
			var again time.Duration
			if o.call(func() { ok, again = q.Look(time.Now()) }); ok {
				break
			}
			if time.Now().After(timeout) {
				o.t.Fatal("not quiet in 20 s")
			}
			<-time.After(again)
		}
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

func handovers(t *testing.T, cfg Config, n int) { handoversOf(own(t, cfg), cfg, n) }

func handoversOf(o *owner, cfg Config, n int) {
	t := o.t
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

func TestHandoversLoseNothing(t *testing.T) { handovers(t, Config{}, count(1000, 20)) }
func TestStickyHandoversLoseNothing(t *testing.T) {
	handovers(t, Config{Balance: Sticky}, count(200, 10))
}

// Without the program a slot's socket goes from worker to worker.
func TestHandoversWithoutProgram(t *testing.T) {
	handovers(t, Config{NoProgram: true}, count(200, 10))
}

func TestGrowAndShrinkLoseNothing(t *testing.T) {
	o := own(t, Config{})
	live := o.generation(4, 1)
	o.steer(live)
	run := o.load(load.Config{Clients: 32})
	for range count(200, 10) {
		extra := o.serve(4, 1)
		o.steer(append(live[:4:4], extra))
		run.Await(20, 5*time.Second)
		// The one in the middle leaves, the new one takes its place.
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
	for g := 2; g < count(40, 14); g++ {
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
	run := o.load(load.Config{Rate: float64(count(2500, 1000))})
	run.Await(int64(count(50_000, 2500)), time.Minute)
	r := run.Stop()
	zero(t, r)
	counts := make([]int64, 4)
	for i, w := range workers {
		counts[i] = w.served.Load()
		w.leave()
	}
	t.Logf("served %v, programs %d", counts, o.group.Steered())
	if r.Quantile(50) > 50 { // ms: queues decide then, not chance
		t.Skip("the machine is too busy for workers that are idle")
	}
	// Of 625 each chance alone leaves 10 % now and then.
	if s, most := load.Spread(counts), float64(count(5, 20))/100; s > most {
		t.Errorf("spread %.1f%% over idle-equal workers, want at most %.0f%%", 100*s, 100*most)
	}
}

// stall has a worker accept nothing, until open is called. It returns when that was
// found out, with how many connections were in its queue then.
func (o *owner) stall(s *server, run *load.Run) (queue int, open func()) {
	o.t.Helper()
	gate := make(chan struct{})
	s.stall.Store(&gate)
	var away []int
	for timeout := time.Now().Add(wait); !slices.Contains(away, s.slot) && time.Now().Before(timeout); {
		o.call(func() { away, queue = o.group.Stalled(), s.socket.Pending() })
		run.Await(1, time.Second)
	}
	if !slices.Contains(away, s.slot) { // others may be late for a moment
		o.t.Fatalf("steered away: %v, want slot %d", away, s.slot)
	}
	return queue, func() { s.stall.Store(nil); close(gate) }
}

// Once a worker is found to have stopped no connection goes to it any more: what is in
// its queue then is all that waits for it. When it accepts again it gets its share.
func TestStallIsSteeredAround(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Rate: 1000, Timeout: time.Minute})
	run.Await(50, wait)
	for range count(10, 3) {
		queue, open := o.stall(workers[3], run)
		const more = 600
		run.Await(more, wait)
		var after int
		o.call(func() { after = workers[3].socket.Pending() })
		// Its share would be a quarter. Handshakes that were half open when it was found end
		// there: one where the machine has time, many where it has not.
		if after-queue > more/8 {
			t.Errorf("%d connections in the queue of the stopped worker, %d when it was found, after %d more", after, queue, more)
		}
		had := workers[3].served.Load() + int64(after)
		open()
		for timeout := time.Now().Add(wait); workers[3].served.Load() <= had; run.Await(1, time.Second) {
			if time.Now().After(timeout) {
				t.Fatal("it gets no connection any more")
			}
		}
	}
	zero(t, run.Stop())
	for _, w := range workers {
		w.leave()
	}
}

// The times of it, on a machine that has time: one of four workers stops accepting for
// 200 ms in each second. The same happens beside it where the kernel's hash decides, and
// nothing happens to a third group.
func TestStallsDelayLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("a busy machine is later than what is measured")
	}
	groups := map[string]*owner{"steered": own(t, Config{}), "hashed": own(t, Config{NoProgram: true}), "undisturbed": own(t, Config{})}
	late := map[string]int64{}
	var stalled []*server
	loads := map[string]*load.Run{}
	for name, o := range groups {
		workers := o.generation(4, 1)
		o.steer(workers)
		if name != "undisturbed" {
			stalled = append(stalled, workers[0])
		}
		loads[name] = o.load(load.Config{Rate: 250, Timeout: time.Minute})
		defer func() {
			for _, w := range workers {
				w.leave()
			}
		}()
	}
	for range 20 {
		gate := make(chan struct{})
		for _, w := range stalled {
			w.stall.Store(&gate)
		}
		<-time.After(200 * time.Millisecond)
		for _, w := range stalled {
			w.stall.Store(nil)
		}
		close(gate)
		loads["steered"].Await(200, time.Minute)
	}
	for name, run := range loads {
		r := run.Stop()
		zero(t, r)
		for _, bar := range r.Latency.Distribution() {
			if bar.From > 50_000 { // µs
				late[name] += bar.Count
			}
		}
		t.Logf("%s: p99 of new connections %.1f ms, %d took more than 50 ms", name, r.Quantile(99), late[name])
	}
	if late["undisturbed"] > 50 {
		t.Skip("the machine is too busy for this")
	}
	if steered, hashed := late["steered"]-late["undisturbed"], late["hashed"]-late["undisturbed"]; steered > hashed/2 {
		t.Errorf("%d late connections of the stalls' with steering, %d without", steered, hashed)
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
	// Nobody serves slot 2: its clients move, nobody else.
	o.steer([]*server{next[0], next[1], nil, next[3]})
	for i, s := range ask() {
		if first[i] == "2" && s == "2" || first[i] != "2" && s != first[i] {
			t.Errorf("client %d of slot %s is at %s while nobody serves slot 2", i, first[i], s)
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
	_, err := o.watch.Listen(Config{Addr: o.group.Addr()})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second group on %v: %v, want EADDRINUSE", o.group.Addr(), err)
	}
	for _, w := range workers {
		w.leave()
	}
}

// A rogue worker ends its listening socket for everybody; it is noticed by an
// event, repaired, and the record of the kernel's order follows.
func TestShutdownByAWorkerIsRepaired(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(4, 1)
	o.steer(workers)
	run := o.load(load.Config{Clients: 8})
	for round := range 8 {
		victim := workers[round%4]
		unix.Shutdown(victim.socket.FD(), unix.SHUT_RDWR)
		if e := await[Repaired](o); e.Socket != victim.socket || !strings.Contains(e.What, "shutdown") {
			t.Fatalf("round %d: %+v", round, e)
		}
		// net.Listener gave up at the error; a fresh one stands for a
		// worker that goes on.
		victim.leave()
		workers[round%4] = o.serve(victim.slot, 1)
		o.steer(workers)
		run.Await(50, 5*time.Second)
	}
	for _, w := range workers { // one may have been found stalled before it came
		for timeout := time.Now().Add(20 * time.Second); w.served.Load() == 0 && time.Now().Before(timeout); {
			run.Await(10, 5*time.Second)
		}
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
func TestFlagsAndBacklogAreRepaired(t *testing.T) {
	o := own(t, Config{})
	var socket *Socket
	var events []Event
	repair := func() (whats []string) {
		o.call(func() { events = socket.Repair() })
		for _, e := range events {
			whats = append(whats, e.(Repaired).What)
		}
		return whats
	}
	o.call(func() { socket, _ = o.group.Take(0) })
	unix.SetNonblock(socket.FD(), false)
	if whats := repair(); len(whats) != 1 || !strings.Contains(whats[0], "O_NONBLOCK") {
		t.Errorf("reported %q, want the cleared O_NONBLOCK", whats)
	}
	if flags, _ := unix.FcntlInt(uintptr(socket.FD()), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("O_NONBLOCK is still clear")
	}
	unix.Listen(socket.FD(), 511) // as Node does
	if whats := repair(); len(whats) != 0 {
		t.Errorf("reported %q", whats)
	}
	if _, backlog, _ := socket.queue(); backlog != o.group.backlog {
		t.Errorf("backlog %d, want %d", backlog, o.group.backlog)
	}
	unix.SetsockoptInt(socket.FD(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
	if whats := repair(); len(whats) != 1 || !strings.Contains(whats[0], "SO_REUSEPORT") {
		t.Errorf("reported %q, want the cleared SO_REUSEPORT", whats)
	}
	// Flags of the holder's own are left alone, until it has gone.
	o.call(socket.OwnFlags)
	unix.SetNonblock(socket.FD(), false)
	if whats := repair(); len(whats) != 0 {
		t.Errorf("reported %q", whats)
	}
	o.call(socket.Release)
	if flags, _ := unix.FcntlInt(uintptr(socket.FD()), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("O_NONBLOCK is clear on a parked socket")
	}
	o.call(socket.Release) // once too often: nothing
	if socket.Held() {
		t.Error("held by nobody")
	}
}

// stray leaves a connection in the queue of a parked socket.
func stray(t *testing.T, o *owner) (parked *Socket, c net.Conn) {
	t.Helper()
	live := o.serve(1, 1)
	o.call(func() {
		parked, _ = o.group.Take(0) // and nobody accepts
		o.group.Steer([]*Socket{parked})
	})
	c, err := net.Dial("tcp", o.group.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); live.leave() })
	o.call(func() {
		o.group.Steer([]*Socket{nil, live.socket})
		parked.Release()
	})
	return parked, c
}

// A connection that is left at a parked socket is reported, and can be taken
// from it.
func TestStrayIsReported(t *testing.T) {
	o := own(t, Config{})
	parked, c := stray(t, o)
	if e := await[Queued](o); e.Socket != parked || e.Group != o.group {
		t.Fatalf("%+v", e)
	}
	o.call(func() { parked.Accept(5) })
	e := await[Accepted](o)
	if e.Err != nil || len(e.FDs) != 1 {
		t.Fatalf("%+v", e)
	}
	if peer, _ := unix.Getpeername(e.FDs[0]); peer.(*unix.SockaddrInet4).Port != c.LocalAddr().(*net.TCPAddr).Port {
		t.Errorf("accepted %+v, not %v", peer, c.LocalAddr())
	}
	closeAll(e.FDs)
}

// Nobody can hang the owner in accept(2): here the socket has become blocking, and its
// queue empty, at the worst instant.
func TestAcceptDoesNotBlockTheOwner(t *testing.T) {
	o := own(t, Config{})
	parked, _ := stray(t, o)
	await[Queued](o)
	// More than there are, as it is when another process takes them just then.
	o.call(func() {
		unix.SetNonblock(parked.FD(), true)
		parked.accept(2, func() { unix.SetNonblock(parked.FD(), false) })
	})
	o.call(func() {
		parked.Accept(5) // one is under way
		if !o.watch.Accepting() {
			t.Error("not under way")
		}
	})
	o.call(func() {
		if err := o.group.Steer([]*Socket{parked}); err != nil { // the goroutine waits for this one
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", o.group.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if e := await[Accepted](o); e.Err != nil || len(e.FDs) != 2 {
		t.Errorf("%+v", e)
	} else {
		closeAll(e.FDs)
	}
}

// An Accept that waits, and what it has taken, do not outlive the watch.
func TestCloseEndsAccept(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := g.Sockets()[0]
	mine, err := unix.Dup(s.FD()) // left open: the goroutine may come late
	if err != nil {
		t.Fatal(err)
	}
	s.accept(2, func() { unix.SetNonblock(mine, false) })
	w.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open: %v", err)
	}
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if err := w.Wait(); err == nil {
		t.Error("waits on a closed watch")
	}
}

// SO_LOCK_FILTER on one member has the kernel refuse the program on that one: another
// takes it. On all of them steering fails, is said to have failed, and changes nothing.
func TestLockedFilter(t *testing.T) {
	o := own(t, Config{})
	a, b := o.serve(0, 1), o.serve(0, 2)
	o.steer([]*server{a})
	unix.SetsockoptInt(a.socket.FD(), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	o.steer([]*server{b})
	answers := func(want *server) {
		t.Helper()
		before := want.served.Load()
		run := o.load(load.Config{Clients: 2})
		run.Await(20, 20*time.Second)
		if r := run.Stop(); want.served.Load()-before != r.Requests || r.Lost() > 0 {
			t.Errorf("%d of %v", want.served.Load()-before, r)
		}
	}
	answers(b)
	unix.SetsockoptInt(b.socket.FD(), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	for range 2 {
		o.call(func() {
			if err := o.group.Steer([]*Socket{a.socket}); !errors.Is(err, unix.EPERM) {
				t.Errorf("steered: %v", err)
			}
		})
	}
	answers(b)
	o.steer([]*server{b})
	a.leave()
	b.leave()
}

// The same, as nobody: nothing here needs a privilege.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("already unprivileged")
	}
	asNobody(t, "^(TestHandoversLoseNothing|TestGrowAndShrinkLoseNothing|TestStickyKeepsAClientAtItsSlot|TestSecondInstanceIsRefused)$")
}
