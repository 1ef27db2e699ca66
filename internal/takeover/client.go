package takeover

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/linux"
)

// News is what a relay process tells by itself.
type News struct {
	Totals *Totals
	Rest   bool // nothing is left in it
	Dead   bool // it has ended; nothing follows
}

// Client is a master's end. Any goroutine may call its methods.
type Client struct {
	news func(News)
	turn chan struct{} // has one while a batch is under way: descriptors are open for that long
	dead chan struct{} // closed when the process has ended

	starting sync.Mutex // held while the process is started

	mu    sync.Mutex // guards the rest, for a moment
	ended bool       // Close was called
	proc  *linux.Pidfd
	conn  *cmsg.Conn
	waits map[int]chan message // by worker; each has room for one
}

// NewClient returns a client whose process is not started before it is needed. It calls
// news from a goroutine of its own.
func NewClient(news func(News)) *Client {
	return &Client{news: news, turn: make(chan struct{}, 1), dead: make(chan struct{}), waits: map[int]chan message{}}
}

// Resume continues with the process of a master that has died: by its pidfd, and that
// master's end of the socket. It owns both.
func Resume(pidfd, socket int, news func(News)) (*Client, error) {
	conn, err := cmsg.Open(socket)
	if err != nil {
		unix.Close(pidfd)
		return nil, err
	}
	proc, err := linux.NewPidfd(linux.PIDOf(pidfd), pidfd)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := NewClient(news)
	c.begin(proc, conn, 0)
	send(conn, message{}) // it answers with its totals
	return c, nil
}

// start starts the process, if it does not run yet; stored is called with its descriptors.
func (c *Client) start(stored func(pidfd, socket int)) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	if runs, err := c.runs(); runs || err != nil {
		return err
	}
	conn, theirs, err := pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	pid, pidfd, err := start(theirs)
	if err != nil {
		conn.Close()
		return fmt.Errorf("cannot start the relay process: %w", err)
	}
	proc, err := linux.NewPidfd(pid, pidfd)
	if err != nil {
		conn.Close() // it ends by that
		go reap(pid)
		return err
	}
	c.begin(proc, conn, pid)
	if stored != nil {
		stored(proc.FD(), conn.FD())
	}
	_, err = c.runs() // it may have been closed meanwhile
	return err
}

// runs reports whether the process was started.
func (c *Client) runs() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		if c.conn != nil {
			c.conn.Close()
		}
		return false, errors.New("the relay process is not wanted any more")
	}
	return c.conn != nil, nil
}

// begin begins to read. child is its pid, if this process has started it.
func (c *Client) begin(proc *linux.Pidfd, conn *cmsg.Conn, child int) {
	c.mu.Lock()
	c.proc, c.conn = proc, conn
	c.mu.Unlock()
	heard := make(chan struct{})
	go func() { // ends with the socket
		defer close(heard)
		buf := make([]byte, maxMessage)
		for {
			m, fds, err := receive(conn, buf)
			cmsg.CloseAll(fds)
			if err != nil {
				return
			}
			c.handle(m)
		}
	}()
	go func() { // ends with the process
		proc.AwaitDeath(time.Time{})
		if child > 0 {
			reap(child)
		}
		<-heard // what it has said last counts; it has closed its end
		close(c.dead)
		proc.Close()
		c.news(News{Dead: true})
	}()
}

func (c *Client) handle(m message) {
	worker := -1
	switch {
	case m.Took != nil:
		worker = m.Took.Worker
	case m.Armed != nil:
		worker = m.Armed.Worker
	case m.Emptied != nil:
		worker = -2 - m.Emptied.Number
	}
	if m.Totals != nil || m.Rest {
		c.news(News{Totals: m.Totals, Rest: m.Rest})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := c.waits[worker]; wait != nil {
		select {
		case wait <- m:
		default: // nobody has asked
		}
	}
}

// Close ends the conversation: the process ends when nothing is left in it.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.conn != nil {
		c.conn.Close()
	}
}

// Kept are the descriptors that the next master needs; ok is false where there is no
// process.
func (c *Client) Kept() (pidfd, socket int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return -1, -1, false
	}
	return c.proc.FD(), c.conn.FD(), c.conn.FD() > 0
}

// Job is a worker that is to drain.
type Job struct {
	Target
	// Uncaught: the drain signal ends the program, which has Patience to answer what it has.
	Uncaught bool
	Patience time.Duration
	// Watch is how long the program may keep connections; Linger, how long one that it has
	// closed may have a request.
	Watch, Linger time.Duration
	// Stored is called with the process's descriptors, if it is started for this.
	Stored func(pidfd, socket int)
}

// ErrRefused means that this process may not take connections of the worker.
var ErrRefused = errors.New("connections of the worker may not be duplicated")

// TakeOver makes a worker's connections ready for its drain signal, and returns when it may
// be sent. It blocks, and calls nothing that the worker can hold up for longer than
// Patience. Without connections nothing is started.
func (c *Client) TakeOver(j Job) (Armed, error) {
	all, err := find(j.Target)
	if err != nil {
		return Armed{}, err
	}
	if len(all) == 0 {
		return Armed{}, nil
	}
	if err := c.start(j.Stored); err != nil {
		return Armed{}, err
	}
	wait := c.expect(j.Worker)
	defer c.forget(j.Worker)
	if err := c.give(j, all, wait); err != nil {
		return Armed{}, err
	}
	arm := armMessage{Worker: j.Worker, Roots: append([]int{j.PID}, j.Others...), Uncaught: j.Uncaught, Patience: j.Patience, Watch: j.Watch, Linger: j.Linger, Peers: j.Peers}
	m, err := c.ask(message{Arm: &arm}, nil, wait, j.Patience+armTimeout)
	if err != nil {
		return Armed{}, err
	}
	if m.Armed == nil {
		return Armed{}, errors.New("the relay process answers something else")
	}
	return *m.Armed, nil
}

// expect returns where answers of this number arrive, until forget.
func (c *Client) expect(number int) <-chan message {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := make(chan message, 1)
	c.waits[number] = wait
	return wait
}

func (c *Client) forget(number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waits, number)
}

// armTimeout is how long the process may take for an answer.
const armTimeout = 5 * time.Second

// ask sends a message and awaits the answer.
func (c *Client) ask(m message, fds []int, wait <-chan message, timeout time.Duration) (message, error) {
	if err := send(c.conn, m, fds...); err != nil {
		return message{}, fmt.Errorf("cannot speak to the relay process: %w", err)
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case answer := <-wait:
		return answer, nil
	case <-c.dead:
		return message{}, errors.New("the relay process has ended")
	case <-late.C:
		return message{}, errors.New("the relay process does not answer")
	}
}

// give duplicates the connections and passes them on, a batch at a time: few descriptors
// are open here.
func (c *Client) give(j Job, all []*found, wait <-chan message) error {
	opened := pidfds{}
	defer opened.close()
	var refused error
	given := 0
	for first := true; len(all) > 0; first = false {
		n := min(maxBatch, len(all))
		kept, took, err := c.batch(j.Worker, first, all[:n], opened.open, wait)
		if err != nil {
			return err
		}
		if refused == nil {
			refused = took.refused
		}
		given += kept
		if kept < took.n { // it has no room for more
			break
		}
		all = all[took.looked:]
	}
	if given == 0 && refused != nil {
		return fmt.Errorf("%w: %w", ErrRefused, refused)
	}
	return nil
}

// pidfds are those that are open, by pid.
type pidfds map[int]*linux.Pidfd

const maxOpened = 8 // at a time

func (o pidfds) open(pid int) (*linux.Pidfd, error) {
	if p := o[pid]; p != nil {
		return p, nil
	}
	if len(o) >= maxOpened {
		o.close()
	}
	p, err := linux.OpenPidfd(pid)
	if err == nil {
		o[pid] = p
	}
	return p, err
}

func (o pidfds) close() {
	for pid, p := range o {
		p.Close()
		delete(o, pid)
	}
}

// taken tells of a batch.
type taken struct {
	looked, n int
	refused   error
}

// batch passes some on. It stops early where descriptors are few.
func (c *Client) batch(worker int, first bool, some []*found, open func(int) (*linux.Pidfd, error), wait <-chan message) (kept int, t taken, err error) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	m := takeMessage{Worker: worker, First: first}
	var fds []int
	room := room()
	for t.looked < len(some) && len(fds) < room {
		f := some[t.looked]
		t.looked++
		fd, err := f.take(open)
		if err == unix.EPERM || err == unix.EACCES {
			t.refused = err
		}
		if err == unix.EMFILE || err == unix.ENFILE {
			break
		}
		if err == nil {
			fds = append(fds, fd)
			m.Connections = append(m.Connections, connHeld{Inode: f.inode, Path: f.cookie == 0, Holders: f.holders[:min(len(f.holders), maxHolders)]})
		}
	}
	t.n = len(fds)
	if t.n == 0 && !first {
		return 0, t, nil
	}
	answer, err := c.ask(message{Take: &m}, fds, wait, armTimeout)
	cmsg.CloseAll(fds) // the process has them
	if err != nil {
		return 0, t, err
	}
	if answer.Took == nil {
		return 0, t, errors.New("the relay process answers something else")
	}
	return answer.Took.Kept, t, nil
}

// room is how many descriptors may be opened here for a moment: a quarter of those that
// are free.
func room() int {
	var limit unix.Rlimit
	d, err := os.Open("/proc/self/fd")
	if err != nil || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1
	}
	defer d.Close()
	used, _ := d.Readdirnames(0)
	return max(int(min(limit.Cur, 1<<20))-len(used), 4) / 4
}

// Sweep takes filters off that a relay process has left: one that was killed. Only ours.
func Sweep(t Target) (lifted int, err error) {
	t.Peers = All
	all, err := find(t)
	opened := pidfds{}
	defer opened.close()
	for _, f := range all {
		fd, terr := f.take(opened.open)
		if terr != nil {
			continue
		}
		if f.cookie != 0 && filterOf(fd) == ours && detach(fd) == nil {
			lifted++
		}
		unix.Close(fd)
	}
	return lifted, err
}
