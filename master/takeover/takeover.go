// Package takeover has workers that drain lose no kept connection: before a worker is told,
// its connections are duplicated for the relay process (internal/takeover), which answers
// on those that the program closes.
//
//	Begin ──(a goroutine: find, duplicate, arm)──► Ready: tell it to drain
//	   └──deadline, error─────────────────────────►
//
// The relay process is started when the first worker of a reload has connections, and ends
// when nothing is left in it. A [Room] belongs to the loop.
package takeover

import (
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/takeover"
)

// Worker identifies a worker. 0 is none; a number is never reused.
type Worker int

// Config configures a room.
type Config struct {
	// Post makes the loop call Handle with that value. Any goroutine may call it.
	Post func(what any)
	// Store gives the keeper a duplicate of a descriptor, for the next master; Remove
	// closes it. Any goroutine may call them.
	Store  func(name string, fd int)
	Remove func(name string)
}

// The names in the keeper's store.
const (
	Process = "relay-pid"    // the pidfd of the relay process
	Socket  = "relay-socket" // the master's end of the socket to it
)

// timeout is how long a worker waits for its drain signal, but for one that the signal ends.
const timeout = time.Second

// Room has the workers that are about to be told to drain.
type Room struct {
	cfg     Config
	client  *takeover.Client // nil: no process runs, and none is needed
	number  int              // of the client: what others have posted is of no interest
	pending map[Worker]time.Time
	queues  map[any]bool               // that are being emptied
	queue   int                        // the number of the last one
	armed   map[Worker]takeover.Target // whose connections the process may have
	workers int                        // that it has armed, as far as this master knows
	totals  takeover.Totals            // as it has told last
	rest    bool                       // it had nothing left then
}

// State is what the next master needs, besides descriptors.
type State struct {
	Pending []Worker        `json:"pending,omitempty"` // not told to drain yet
	Armed   []Worker        `json:"armed,omitempty"`
	Totals  takeover.Totals `json:"totals"` // that are counted already
}

// Notice is what has happened: one of the types below.
type Notice interface{ notice() }

type (
	// Ready: a worker can be told to drain. Err is why its connections are not taken over;
	// nil: they are.
	Ready struct {
		Worker Worker
		Armed  takeover.Armed
		Err    error
	}
	// Counted: so much was added.
	Counted struct{ takeover.Totals }
	// Finished: the relay process ends, after so much.
	Finished struct{ takeover.Totals }
	// Lost: it was killed, with so many connections that nobody else had.
	Lost struct{ Connections int }
	// Swept: so many filters of one that was killed were taken off.
	Swept struct {
		Filters int
		Err     error
	}
	// Emptied: of what waited in a queue, so much was passed to live workers, and so much is
	// left where it is.
	Emptied struct {
		Of any // what [Room.Empty] was called with
		takeover.Emptied
		Err error
	}
)

func (Emptied) notice()  {}
func (Ready) notice()    {}
func (Counted) notice()  {}
func (Finished) notice() {}
func (Lost) notice()     {}
func (Swept) notice()    {}

// Values that goroutines post.
type (
	tookOver struct {
		worker Worker
		number int
		armed  takeover.Armed
		err    error
	}
	news struct {
		number int
		takeover.News
	}
	swept   Swept
	emptied Emptied
)

// ErrLate: a worker was told to drain before its connections were ready.
var ErrLate = errors.New("it took too long")

// New returns a room.
func New(cfg Config) *Room {
	return &Room{cfg: cfg, pending: map[Worker]time.Time{}, queues: map[any]bool{}, armed: map[Worker]takeover.Target{}}
}

// Begin begins to take a worker's connections over; a [Ready] follows.
func (r *Room) Begin(w Worker, j takeover.Job, now time.Time) {
	if r.Pending(w) {
		return
	}
	r.pending[w] = now.Add(timeout)
	if j.Uncaught {
		r.pending[w] = now.Add(max(j.Patience, timeout))
	}
	r.armed[w] = j.Target
	c, number := r.process(), r.number
	j.Stored = r.stored
	go func() { // ends when the process has answered, or after a while
		armed, err := c.TakeOver(j)
		r.cfg.Post(tookOver{w, number, armed, err})
	}()
}

// process returns the client of the relay process, which is started when it is asked.
func (r *Room) process() *takeover.Client {
	if r.client == nil {
		r.begin(takeover.NewClient(r.hear()), takeover.Totals{})
	}
	return r.client
}

func (r *Room) stored(pidfd, socket int) {
	r.cfg.Store(Process, pidfd)
	r.cfg.Store(Socket, socket)
}

// Empty has what waits at a listening socket, whose worker is gone, passed to live workers; an
// [Emptied] with of follows. While it is under way, a second call does nothing. It owns the
// descriptor.
func (r *Room) Empty(of any, socket int, peers takeover.Peers) {
	if r.queues[of] {
		unix.Close(socket)
		return
	}
	r.queues[of] = true
	r.queue++
	c, q := r.process(), takeover.Queue{Number: r.queue, Socket: socket, Peers: peers, Stored: r.stored}
	go func() { // ends when the process has accepted them, or after a while
		e, err := c.Empty(q)
		unix.Close(socket)
		r.cfg.Post(emptied{of, e, err})
	}()
}

// hear returns what posts the news of the next client.
func (r *Room) hear() func(takeover.News) {
	number := r.number + 1
	return func(n takeover.News) { r.cfg.Post(news{number, n}) }
}

func (r *Room) begin(c *takeover.Client, counted takeover.Totals) {
	r.number++
	r.client, r.totals, r.workers, r.rest = c, counted, 0, false
}

// Handle takes what a goroutine has posted.
func (r *Room) Handle(what any) []Notice {
	switch e := what.(type) {
	case tookOver:
		return r.tookOver(e)
	case news:
		if e.number == r.number && r.client != nil {
			return r.news(e.News)
		}
	case emptied:
		delete(r.queues, e.Of)
		return append([]Notice{Emptied(e)}, r.settle()...)
	case swept:
		return []Notice{Swept(e)}
	}
	return nil
}

func (r *Room) tookOver(e tookOver) (said []Notice) {
	if r.Pending(e.worker) { // else it was told at its deadline, or has died
		delete(r.pending, e.worker)
		said = append(said, Ready{e.worker, e.armed, e.err})
	}
	if e.number == r.number && e.err == nil && e.armed.Worker != 0 {
		r.workers++
	}
	return append(said, r.settle()...)
}

func (r *Room) news(n takeover.News) (said []Notice) {
	if n.Totals != nil {
		if add := n.Totals.Since(r.totals); add != (takeover.Totals{}) {
			said = append(said, Counted{add})
		}
		r.totals, r.rest = *n.Totals, n.Rest
	}
	if n.Dead {
		return append(said, r.died()...)
	}
	return append(said, r.settle()...)
}

// settle ends the process, if nothing is left in it, and nothing is about to come.
func (r *Room) settle() []Notice {
	if len(r.pending)+len(r.queues) > 0 || r.client == nil {
		return nil
	}
	if _, _, runs := r.client.Kept(); runs && (!r.rest || r.totals.Workers < r.workers) {
		return nil
	}
	r.end()
	if r.totals.Taken == 0 {
		return nil
	}
	return []Notice{Finished{r.totals}}
}

// end ends the conversation.
func (r *Room) end() {
	if _, _, runs := r.client.Kept(); runs {
		r.cfg.Remove(Socket)
		r.cfg.Remove(Process)
	}
	r.client.Close()
	r.client = nil
	clear(r.armed)
}

// died: the process was killed. Its filters would keep connections deaf for ever.
func (r *Room) died() []Notice {
	r.Sweep(slices.Collect(maps.Values(r.armed)))
	lost := r.totals.Owned
	r.end()
	return []Notice{Lost{lost}}
}

// Sweep takes filters off the connections of workers; a [Swept] follows.
func (r *Room) Sweep(all []takeover.Target) {
	if len(all) == 0 {
		return
	}
	go func() { // ends when they have been looked at
		var s swept
		for _, t := range all {
			n, err := takeover.Sweep(t)
			s.Filters, s.Err = s.Filters+n, errors.Join(s.Err, err)
		}
		r.cfg.Post(s)
	}()
}

// Forget: a worker has died.
func (r *Room) Forget(w Worker) { delete(r.pending, w) }

// Pending reports whether a worker waits to be told.
func (r *Room) Pending(w Worker) bool { return !r.pending[w].IsZero() }

// Deadline is when Tick must be called; zero: not by time.
func (r *Room) Deadline() (next time.Time) {
	for _, by := range r.pending {
		if next.IsZero() || by.Before(next) {
			next = by
		}
	}
	return next
}

// Tick returns the workers that have waited for too long.
func (r *Room) Tick(now time.Time) (said []Notice) {
	for _, w := range slices.Sorted(maps.Keys(r.pending)) {
		if !now.Before(r.pending[w]) {
			delete(r.pending, w)
			said = append(said, Ready{Worker: w, Err: ErrLate})
		}
	}
	return said
}

// Hurry returns those that wait: the service stops.
func (r *Room) Hurry() (said []Notice) {
	for _, w := range slices.Sorted(maps.Keys(r.pending)) {
		said = append(said, Ready{Worker: w})
	}
	clear(r.pending)
	return said
}

// State returns what the next master needs; nil: nothing.
func (r *Room) State() *State {
	if r.client == nil {
		return nil
	}
	return &State{Pending: slices.Sorted(maps.Keys(r.pending)), Armed: slices.Sorted(maps.Keys(r.armed)), Totals: r.totals}
}

// Kept calls each for each descriptor that the next master needs.
func (r *Room) Kept(each func(name string, fd int)) {
	if r.client == nil {
		return
	}
	if pidfd, socket, runs := r.client.Kept(); runs {
		each(Process, pidfd)
		each(Socket, socket)
	}
}

// Restore continues with the process of the previous master, whose descriptors take
// returns (-1: it is missing). job is what a worker would be taken over with; ok is false of
// one that is not there.
func (r *Room) Restore(s *State, take func(name string) int, job func(Worker) (j takeover.Job, ok bool), now time.Time) (said []Notice) {
	pidfd, socket := take(Process), take(Socket)
	if s == nil {
		s = &State{}
	}
	if pidfd >= 0 && socket >= 0 {
		if c, err := takeover.Resume(pidfd, socket, r.hear()); err == nil {
			r.begin(c, s.Totals)
		}
	}
	for _, w := range s.Armed {
		if j, ok := job(w); ok {
			r.armed[w] = j.Target
		}
	}
	if r.client == nil {
		r.Sweep(slices.Collect(maps.Values(r.armed)))
		clear(r.armed)
	}
	for _, w := range s.Pending {
		if j, ok := job(w); ok {
			r.Begin(w, j, now)
		} else {
			said = append(said, Ready{Worker: w})
		}
	}
	return said
}
