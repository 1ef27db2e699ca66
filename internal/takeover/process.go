package takeover

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/relay"
)

// Word is the first argument of the relay process.
const Word = "__relay"

// socketFD is its end of the socket to the master.
const socketFD = 3

// Process is the relay process: it has duplicates of the connections of workers that
// drain, and answers on those that the programs close. It returns an exit code when
// nothing is left to do, and no master is there to give more.
func Process() int {
	conn, err := cmsg.Open(socketFD)
	if err != nil {
		return 2
	}
	return newProcess(conn).run()
}

// process is the loop: it owns all but what a tender has.
type process struct {
	conn     *cmsg.Conn
	most     int // descriptors
	held     int
	lists    map[int][]*connHeld // by worker, taken and not armed
	armed    map[int]Armed
	tending  int
	serving  int
	splicing int // of the queues of workers that have died
	totals   Totals
	master   bool // is there
	reports  chan report
	answers  chan bool // of a connection; answered
	slots    chan struct{}
	hops     hops
}

// incoming is a message, as it has arrived.
type incoming struct {
	message
	fds []int
	err error
}

func newProcess(conn *cmsg.Conn) *process {
	p := &process{conn: conn, lists: map[int][]*connHeld{}, armed: map[int]Armed{}, master: true, reports: make(chan report), answers: make(chan bool)}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		limit.Cur = 256
	}
	// Of four descriptors three are for connections. One that is answered has another, to
	// the worker that answers, and the listings of processes have some.
	most := int(min(limit.Cur, 1<<20))
	p.most = max(most*3/4-16, 0)
	p.slots = make(chan struct{}, max(most/4-24, 4))
	return p
}

func (p *process) run() int {
	messages := make(chan incoming)
	go func() { // ends with the socket
		defer close(messages)
		buf := make([]byte, maxMessage)
		for {
			m, fds, err := receive(p.conn, buf)
			if err == errEnd || err == os.ErrClosed {
				cmsg.CloseAll(fds)
				return
			}
			messages <- incoming{m, fds, err}
		}
	}()
	for {
		select {
		case m, more := <-messages:
			if !more {
				p.master, messages = false, nil
				for worker := range p.lists { // nobody says more of them
					p.drop(worker)
				}
				break
			}
			p.handle(m)
		case r := <-p.reports:
			p.reported(r)
		case answered := <-p.answers:
			p.serving--
			p.held--
			p.totals.Owned--
			if answered {
				p.totals.Answered++
			}
		}
		if p.tending+p.serving+p.splicing+len(p.lists) > 0 {
			p.say(message{Totals: &p.totals})
			continue
		}
		if !p.master {
			return 0
		}
		p.say(message{Totals: &p.totals, Rest: true})
	}
}

// say sends news. A master that does not read has none: those that come later have it, too.
func (p *process) say(m message) {
	if p.master {
		if err := send(p.conn, m); err != nil && err != unix.EAGAIN {
			p.conn.Close() // ends the reader; what is under way goes on
		}
	}
}

func (p *process) handle(m incoming) {
	switch {
	case m.err != nil:
		cmsg.CloseAll(m.fds)
	case m.Take != nil:
		p.take(*m.Take, m.fds)
	case m.Arm != nil:
		p.arm(*m.Arm)
	case m.Accept != nil && len(m.fds) == 1:
		p.splicing++                    // until it is emptied
		go p.empty(*m.Accept, m.fds[0]) // ends when what waits has been accepted
	default:
		cmsg.CloseAll(m.fds)
	}
}

// take keeps the descriptors of a batch, as many as there is room for.
func (p *process) take(m takeMessage, fds []int) {
	if m.First {
		p.drop(m.Worker)
	}
	kept := 0
	for i, fd := range fds {
		if _, again := p.armed[m.Worker]; again || i >= len(m.Connections) || p.held >= p.most {
			go unix.Close(fd) // ends with its SO_LINGER, if nobody else has it
			continue
		}
		c := m.Connections[i]
		c.fd, c.name = fd, socketName(c.Inode)
		p.lists[m.Worker] = append(p.lists[m.Worker], &c)
		p.held++
		kept++
	}
	p.say(message{Took: &tookMessage{m.Worker, kept}})
}

// drop closes what is not armed of a worker.
func (p *process) drop(worker int) {
	for _, c := range p.lists[worker] {
		p.held--
		go unix.Close(c.fd) // ends with its SO_LINGER, if nobody else has it
	}
	delete(p.lists, worker)
}

func (p *process) arm(m armMessage) {
	if a, again := p.armed[m.Worker]; again { // a new master asks
		p.say(message{Armed: &a})
		return
	}
	conns := p.lists[m.Worker]
	delete(p.lists, m.Worker)
	if len(m.Roots) == 0 {
		return
	}
	p.tending++
	t := &tender{armMessage: m, conns: conns, looks: relay.Looks, report: func(r report) { p.reports <- r }}
	t.serve = func(fd int) {
		p.reports <- report{served: true}
		go p.answer(fd, m.Peers) // ends with the connection
	}
	go t.run() // ends when each of them has an end
}

func (p *process) reported(r report) {
	add := &p.totals
	add.Taken += r.add.Taken
	add.Idle += r.add.Idle
	add.Closed += r.add.Closed
	add.Left += r.add.Left
	add.Owned += r.add.Owned
	add.Rescued += r.add.Rescued
	p.splicing += r.spliced
	if r.emptied != nil {
		p.splicing--
		p.say(message{Emptied: r.emptied})
	}
	p.held -= r.closed
	if r.served {
		p.serving++
	}
	if r.armed != nil {
		p.armed[r.armed.Worker] = *r.armed
		p.totals.Workers++
		p.say(message{Armed: r.armed})
	}
	if r.done {
		p.tending--
	}
}

// answer answers what is asked on a connection.
func (p *process) answer(fd int, peers Peers) {
	answered := false
	defer func() { p.answers <- answered }()
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	f := os.NewFile(uintptr(fd), "connection")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return
	}
	server := relay.Server{Dial: func(ctx context.Context, c net.Conn) (net.Conn, error) { return relay.DialFrom(ctx, c, peers.mode()) }}
	answered = server.Serve(c).Answered > 0
}

// start starts the relay process, with the other end of a socket. It has no terminal and
// no output that others wait for: it may outlive handoff by the linger.
func start(theirs *os.File) (pid, pidfd int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, -1, err
	}
	defer null.Close()
	pid, err = syscall.ForkExec("/proc/self/exe", []string{"handoff", Word}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOTRACEBACK=none"}, Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()},
		Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setsid: true},
	})
	return pid, pidfd, err
}

// reap waits for a process that this one has started; an heir of its master has not.
func reap(pid int) {
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			return
		}
	}
}
