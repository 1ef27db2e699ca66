package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/nodeipc"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// Session is the session with one worker. Package contract says which goroutine calls
// what.
type Session struct {
	contract.Worker
	primary    *Primary
	conn       *cmsg.Conn // nil: the previous master did not store it
	queue      *queue     // nil: likewise
	recording  atomic.Bool
	dead       bool
	ended      bool
	overflowed bool // reported
	refused    int
	handed     map[int]pending      // connections handed over, by seq, until it answers
	unused     []*listeners.Address // that it has closed, and no other worker has had
}

// maxUnused limits how many addresses that a worker has closed are kept for a later
// worker: one that listens on ever new ports would fill the table of descriptors.
const maxUnused = 16

// Values that Serve posts.
type (
	// said: a message of the worker. own is of one that wants to serve on a descriptor of
	// its own.
	said struct {
		message nodeipc.Message
		own     ownSocket
	}
	// protocolError: invalid lines were dropped.
	protocolError struct{ reason string }
	// hungUp: it has closed its channel.
	hungUp struct{}
)

// Serve reads the worker's channel to its end and posts its messages, except those of the
// program itself, so that a program that sends many does not load the loop. It closes the
// descriptors that a worker sends, since close(2) may block.
func (s *Session) Serve() {
	if s.conn == nil {
		return
	}
	var split nodeipc.Splitter
	buf := make([]byte, 16<<10)
	reports := 0
	report := func(reason string) {
		if reports++; reports <= contract.MaxReports {
			s.Post(protocolError{reason})
		}
	}
	for {
		n, fds, err := s.conn.Read(buf)
		if n == 0 || err != nil {
			break
		}
		cmsg.CloseForeign(fds)
		dropped := split.Feed(buf[:n], func(line []byte) {
			m, err := nodeipc.Parse(line)
			if err != nil {
				report("invalid line: " + err.Error())
				return
			}
			if _, later := m.(nodeipc.Listening); !later { // recorded when it is put into service
				s.record(m, line)
			}
			if _, programs := m.(nodeipc.Other); !programs {
				s.Post(said{m, s.duplicate(m)})
			}
		})
		if dropped > 0 {
			report("a line longer than 1 MiB")
		}
	}
	s.record(nil, nil)
	s.Post(hungUp{})
}

// Busy reports whether Serve waits for the reader of the worker events.
func (s *Session) Busy() bool { return s.recording.Load() }

// Handle takes what Serve has posted.
func (s *Session) Handle(what any) {
	if s.ended {
		if e, ok := what.(said); ok {
			e.own.discard()
		}
		return
	}
	switch e := what.(type) {
	case said:
		s.said(e.message, e.own)
	case protocolError:
		s.report(contract.ProtocolError{Reason: e.reason})
	case hungUp:
		s.queue.close()
		s.report(contract.Disconnected{})
	}
}

func (s *Session) report(f contract.Fact) { s.primary.host.Report(s.ID, f) }

// said handles a message of the worker.
func (s *Session) said(m nodeipc.Message, own ownSocket) {
	switch m := m.(type) {
	case nodeipc.Online:
		s.report(contract.Started{})
	case nodeipc.Query:
		s.provide(m, own)
	case nodeipc.Listening:
		s.listening(m)
	case nodeipc.Ready:
		s.report(contract.Ready{})
	case nodeipc.Requests:
		s.report(contract.Requests{N: m.N})
	case nodeipc.ReplaceMe:
		s.report(contract.Leaving{})
	case nodeipc.Closed:
		s.closed(m.Key)
	case nodeipc.Left:
		s.send(nodeipc.Ack(m.Seq), -1)
		s.report(contract.Leaving{})
	case nodeipc.Answered:
		s.answered(m)
	case nodeipc.HandleTaken:
		s.overflow(s.queue.acknowledged(m.Ok))
	case nodeipc.HandleSent:
		s.send(nodeipc.HandleReceipt(), -1)
		s.said(m.Message, own)
	case nodeipc.Other:
	default:
		panic(fmt.Sprintf("node: unknown message %T", m))
	}
}

// send queues a message and takes ownership of the descriptor (-1: none).
func (s *Session) send(line []byte, fd int) {
	s.overflow(s.queue.send(outgoing{line: line, fd: fd}))
}

// overflow ends a worker that sends requests and never reads.
func (s *Session) overflow(err error) {
	if err != nil && !s.overflowed {
		s.overflowed = true
		s.report(contract.Overflow{Err: err})
	}
}

// provide answers a worker's request to listen.
func (s *Session) provide(q nodeipc.Query, own ownSocket) {
	host := s.primary.host
	if host.Stopping() || s.dead {
		own.discard()
		return // its socket is gone, and so is the worker soon
	}
	fd, kind, key, data, err := -1, nodeipc.Stream, "", q.Data, error(nil)
	switch {
	case q.TooLong:
		err = unix.E2BIG
	case host.Listeners().Count(s.ID) >= contract.MaxLeases:
		err = unix.EMFILE
	case q.FD >= 0:
		key = "own-" + strconv.Itoa(q.Seq)
		fd, err, own = own.fd, own.err, ownSocket{}
	default:
		e := endpointOf(q, s.Dir)
		var lease *listeners.Lease
		if lease, err = host.Listeners().Lease(s.ID, s.Slot, e, q.Data); err == nil {
			fd, err = unix.FcntlInt(uintptr(lease.FD()), unix.F_DUPFD_CLOEXEC, 3)
			kind, key, data = handleType(lease.Type()), lease.Address().Key(), lease.Address().Data()
		}
		if err != nil {
			if s.refused++; s.refused <= contract.MaxReports {
				s.report(contract.Refused{Endpoint: e, Err: err})
			}
		}
	}
	own.discard() // unless it is what is sent
	if err != nil {
		s.send(nodeipc.Refuse(q, "refused", int(contract.Errno(err))), -1)
		return
	}
	s.send(nodeipc.Reply(q, kind, key, data), fd)
}

// listening: the worker accepts on an address that it has leased.
func (s *Session) listening(l nodeipc.Listening) {
	held := false
	if !s.dead {
		held = s.primary.host.Listeners().Listening(s.ID, endpointSaid(l, s.Dir))
		s.primary.host.Steer()
		s.record(l, nil)
	}
	s.report(contract.Listening{Own: !held})
}

// closed: the worker has closed a server. The address is kept for a while, for a later
// worker; of those that no other worker has had, up to a limit.
func (s *Session) closed(key string) {
	table := s.primary.host.Listeners()
	a := table.ByKey(key)
	if a == nil || a.LeaseOf(s.ID) == nil {
		return
	}
	table.Closed(a, s.ID, time.Now())
	s.primary.host.Steer()
	if a.Shared() {
		return
	}
	s.unused = append(slices.DeleteFunc(s.unused, func(o *listeners.Address) bool { return o == a }), a)
	if len(s.unused) > maxUnused {
		if first := s.unused[0]; !first.Shared() { // in the meantime
			table.CloseUnused(first)
		}
		s.unused = s.unused[1:]
	}
}

// Drain tells the worker to finish.
func (s *Session) Drain(d contract.Drain) error {
	if s.queue != nil {
		s.send(nodeipc.Drain(s.primary.next(), d.Message), -1)
		return nil
	}
	return s.Process.TrySignal(d.Signal)
}

// Terminate does nothing: the loop signals the leader, and there is no other process.
func (s *Session) Terminate() error { return nil }

// Reasons why a message is not sent.
var (
	ErrNoChannel = errors.New("the worker has no IPC channel")
	ErrBusy      = errors.New("the worker does not read its messages")
	ErrReserved  = errors.New("the message is reserved for Node")
)

// Send sends a message, as JSON, to the program: its 'message' event. The error is one
// of ErrNoChannel, ErrBusy and, with a reason, ErrReserved.
func (s *Session) Send(message json.RawMessage) error {
	switch {
	case s.dead || s.queue == nil || s.queue.closed:
		return ErrNoChannel
	case s.queue.busy():
		return ErrBusy
	}
	line, err := nodeipc.Program(message)
	if err != nil {
		return &reserved{err}
	}
	s.send(line, -1)
	return nil
}

type reserved struct{ error }

func (*reserved) Is(target error) bool { return target == ErrReserved }

// Died: the worker's process has died. Its last messages are still handled.
func (s *Session) Died() { s.dead = true }

// End ends the session: the worker has exited. Connections that it has not acknowledged
// go to others.
func (s *Session) End() {
	s.dead, s.ended = true, true
	delete(s.primary.sessions, s.ID)
	if s.queue != nil {
		s.queue.close()
	}
	for seq, p := range s.handed {
		delete(s.handed, seq)
		s.primary.pass(p, s.ID)
	}
}

// State returns what the next master must know.
func (s *Session) State() contract.State {
	return contract.State{InFlight: s.queue != nil && s.queue.inFlight != nil}
}

// Kept calls each for each descriptor that the next master needs.
func (s *Session) Kept(each func(what string, fd int)) {
	if s.queue != nil && !s.queue.closed {
		each(fdstore.Pair, s.conn.FD())
	}
}
