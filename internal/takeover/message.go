package takeover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// message is what a master and the relay process say to each other: JSON, one a datagram,
// over a SOCK_SEQPACKET socket.
//
//	master → process  take{worker, connections} + their descriptors, in that order
//	process → master  took{worker, kept}         so many could be kept; the next ones, please
//	master → process  arm{worker, …}             these are all: make ready for the drain signal
//	process → master  armed{worker, …}           now
//	master → process  accept{number, peers} + a listening socket: pass on what waits there
//	process → master  emptied{number, taken, left}
//	                  totals{…}                  since the process began
//	                  rest                       nothing is left: without a master it would end
//
// The end of the socket ends nothing that is under way.
type message struct {
	Take    *takeMessage   `json:"take,omitempty"`
	Took    *tookMessage   `json:"took,omitempty"`
	Arm     *armMessage    `json:"arm,omitempty"`
	Armed   *Armed         `json:"armed,omitempty"`
	Accept  *acceptMessage `json:"accept,omitempty"`
	Emptied *Emptied       `json:"emptied,omitempty"`
	Totals  *Totals        `json:"totals,omitempty"`
	Rest    bool           `json:"rest,omitempty"`
}

type takeMessage struct {
	Worker      int        `json:"worker"`
	First       bool       `json:"first,omitempty"` // those before it are of a master that died
	Connections []connHeld `json:"connections"`
}

type tookMessage struct {
	Worker int `json:"worker"`
	Kept   int `json:"kept"`
}

type armMessage struct {
	Worker int   `json:"worker"`
	Roots  []int `json:"roots"` // its processes: these and what descends from them
	// Uncaught: the drain signal ends the program at once, so that it must have answered
	// before; that is awaited so long.
	Uncaught bool          `json:"uncaught,omitempty"`
	Patience time.Duration `json:"patience,omitempty"`
	Watch    time.Duration `json:"watch"` // how long what the program keeps is watched
	Linger   time.Duration `json:"linger"`
	Peers    Peers         `json:"peers"`
}

type acceptMessage struct {
	Number int   `json:"number"`
	Peers  Peers `json:"peers"`
}

// Armed tells of a worker's connections when it can be told to drain.
type Armed struct {
	Worker   int `json:"worker"`
	Taken    int `json:"taken"`
	Filtered int `json:"filtered"`       // of these, idle
	Busy     int `json:"busy,omitempty"` // of a program that the signal ends: that had not answered in time
}

// Totals count connections since the process began.
type Totals struct {
	Workers  int `json:"workers,omitempty"`  // that were armed
	Taken    int `json:"taken,omitempty"`    // held beside the program
	Answered int `json:"answered,omitempty"` // that the program has closed, and whose next request was answered
	Idle     int `json:"idle,omitempty"`     // likewise, on which none came
	Closed   int `json:"closed,omitempty"`   // likewise, on which something else came than a request of HTTP/1
	Left     int `json:"left,omitempty"`     // that the program has kept
	Rescued  int `json:"rescued,omitempty"`  // that waited for a worker that has died, and were passed on
	Owned    int `json:"owned,omitempty"`    // now: nobody else has them
}

// maxMessage is the longest message, in bytes; maxHolders of one connection are told.
const (
	maxMessage = 64 << 10
	maxBatch   = 100
	maxHolders = 16
)

// pair returns the two ends of a socket.
func pair() (ours *cmsg.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot create a socketpair: %w", err)
	}
	if ours, err = cmsg.Open(fds[0]); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(fds[1]), "relay"), nil
}

// sendTimeout is how long the other end may take to read. It does little else.
const sendTimeout = time.Second

func send(c *cmsg.Conn, m message, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return unix.EMSGSIZE
	}
	c.SetWriteDeadline(time.Now().Add(sendTimeout))
	return c.Write(b, fds...)
}

var errEnd = errors.New("the other end is closed")

// receive reads one message. The caller owns the descriptors, also after an error.
func receive(c *cmsg.Conn, buf []byte) (m message, fds []int, err error) {
	got, err := c.Receive(buf)
	switch {
	case err != nil:
		return m, nil, err
	case got.N == 0:
		return m, got.FDs, errEnd
	}
	return m, got.FDs, parse(buf[:got.N], &m)
}

// parse reads a message.
func parse(b []byte, m *message) error {
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("cannot read a message: %w", err)
	}
	return nil
}

// Since returns what was added since other totals of the same process.
func (t Totals) Since(o Totals) Totals {
	return Totals{Workers: t.Workers - o.Workers, Taken: t.Taken - o.Taken, Answered: t.Answered - o.Answered, Idle: t.Idle - o.Idle, Closed: t.Closed - o.Closed, Left: t.Left - o.Left, Rescued: t.Rescued - o.Rescued, Owned: t.Owned - o.Owned}
}
