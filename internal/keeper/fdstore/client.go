package fdstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Client is a master's way to its keeper. A nil Client is that of a master without
// one: nothing is held. Tick and Deadline belong to the master's loop; all else may
// be called from any goroutine.
type Client struct {
	conn *cmsg.Conn
	// mute: the keeper has not read what it was told, and is not told any more, so
	// that a keeper that is stopped (Ctrl-Z) keeps nobody waiting.
	mute    atomic.Bool
	onMute  func(why error)
	timeout time.Duration // readTimeout, but in tests
	probeAt time.Time     // when a mute keeper is tried next
}

const (
	// readTimeout is how long the keeper may take to read. It does nothing else, so
	// that a longer wait means that it is stopped.
	readTimeout  = time.Second
	probeEvery   = time.Second
	probeTimeout = 10 * time.Millisecond
	// giveTimeout is how long the keeper may take to give everything.
	giveTimeout = 10 * time.Second
)

// ErrMute says that the keeper does not read what it is told.
var ErrMute = errors.New("the keeper does not respond")

// Dial connects to the keeper that listens at an address; "" is none, for which the
// Client is nil. onMute is called when the keeper becomes mute, from whatever
// goroutine has noticed it. The caller closes the Client.
func Dial(address string, onMute func(why error)) (*Client, error) {
	if address == "" {
		return nil, nil
	}
	c, err := cmsg.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the keeper: %w", err)
	}
	return &Client{conn: c, onMute: onMute, timeout: readTimeout}, nil
}

// Close ends the talk.
func (c *Client) Close() {
	if c != nil {
		c.conn.Close()
	}
}

// Mute tells whether the keeper does not read.
func (c *Client) Mute() bool { return c != nil && c.mute.Load() }

// Deadline is when Tick is to be called next; zero: need not.
func (c *Client) Deadline() time.Time {
	if !c.Mute() {
		return time.Time{}
	}
	return c.probeAt
}

// Tick tries a mute keeper once a second, and tells whether it responds again. It is to
// be told everything then, see [Client.Resync].
func (c *Client) Tick(now time.Time) (responds bool) {
	if !c.Mute() || now.Before(c.probeAt) {
		return false
	}
	c.probeAt = now.Add(probeEvery)
	if c.send(probeTimeout, "X_PROBE=1") != nil {
		return false
	}
	c.mute.Store(false)
	return true
}

// Say sends a message, with descriptors that stay the caller's.
func (c *Client) Say(text string, fds ...int) error {
	if c == nil {
		return nil
	}
	if c.mute.Load() {
		return ErrMute
	}
	err := c.send(c.timeout, text, fds...)
	if err != nil && c.mute.CompareAndSwap(false, true) && c.onMute != nil {
		c.onMute(err)
	}
	return err
}

func (c *Client) send(timeout time.Duration, text string, fds ...int) error {
	c.conn.SetWriteDeadline(time.Now().Add(timeout))
	return c.conn.Write([]byte(text), fds...)
}

// Ready says that this master heeds signals from now on.
func (c *Client) Ready() { c.Say("READY=1\nX_UPGRADE=0") }

// Upgrading says whether this master has a candidate started.
func (c *Client) Upgrading(yes bool) {
	if yes {
		c.Say("X_UPGRADE=1")
	} else {
		c.Say("X_UPGRADE=0")
	}
}

// Stopping says that this master's exit is meant.
func (c *Client) Stopping() { c.Say("STOPPING=1") }

// Leaving says that this master makes room for its candidate.
func (c *Client) Leaving() { c.Say("X_LEAVING=1") }

// NotifyManager tells the service manager above, by way of the keeper, which is the
// process that it knows.
func (c *Client) NotifyManager(text string) { c.Say("X_UP=1\n" + text) }

// Store has a duplicate of fd held by that name, in the place of what has it.
func (c *Client) Store(name string, fd int) error { return c.Say(storeText(name), fd) }

func storeText(name string) string { return "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name }

// StoreState is Store for the record, and takes note of signals in the same message, so
// that a signal is never both in the record and told to the next master.
func (c *Client) StoreState(fd int, took []unix.Signal) error {
	text := storeText(State)
	var names []string
	for _, s := range took {
		names = append(names, unix.SignalName(s))
	}
	if len(names) > 0 {
		text += "\nX_TOOK=" + strings.Join(names, ",")
	}
	return c.Say(text, fd)
}

// StoreFile is Store for a file or a socket of Go's.
func (c *Client) StoreFile(name string, f syscall.Conn) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err = raw.Control(func(fd uintptr) { serr = c.Store(name, int(fd)) }); err == nil {
		err = serr
	}
	return err
}

// Remove has what is held by a name closed.
func (c *Client) Remove(name string) { c.Say("FDSTOREREMOVE=1\nFDNAME=" + name) }

// Resync has the keeper hold these, and nothing else (but what a service manager has
// passed). Meanwhile it holds at least what it held before. The descriptors stay the
// caller's.
func (c *Client) Resync(all []cmsg.Named) {
	c.Say("X_BEGIN=1")
	for _, n := range all {
		c.Store(n.Name, n.FD)
	}
	c.Say("X_END=1")
}

// Flush waits until the keeper has heeded all that was said, for a second at most.
func (c *Client) Flush() {
	if c == nil || c.mute.Load() {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	c.Say("BARRIER=1", int(w.Fd()))
	w.Close()
	r.SetReadDeadline(time.Now().Add(c.timeout))
	r.Read(make([]byte, 1)) // its end
}

// Announce tells the keeper that this process may become the master.
func Announce(address string) error {
	c, err := Dial(address, nil)
	if err != nil || c == nil {
		return err
	}
	defer c.Close()
	return c.conn.Write([]byte("X_CANDIDATE=1"))
}

// TakeAll asks the keeper for duplicates of all that it holds. The caller owns them,
// also where there is an error.
func TakeAll(address string) ([]cmsg.Named, error) { return take(address, "") }

// ReadProgram asks the keeper for what [Program] was last; nil if there is none.
func ReadProgram(address string) ([]byte, error) {
	named, err := take(address, Program)
	var text []byte
	for _, n := range named {
		f := os.NewFile(uintptr(n.FD), n.Name)
		if err == nil {
			text, err = io.ReadAll(io.NewSectionReader(f, 0, maxProgram))
		}
		f.Close()
	}
	return text, err
}

const maxProgram = 64 << 20 // bytes

func take(address, only string) ([]cmsg.Named, error) {
	c, err := Dial(address, nil)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errors.New("cannot take over: there is no keeper")
	}
	defer c.Close()
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	text := "X_GIVE=1"
	if only != "" {
		text += "\nFDNAME=" + only
	}
	err = c.conn.Write([]byte(text), int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot query the keeper: %w", err)
	}
	ours.SetReadDeadline(time.Now().Add(giveTimeout))
	return receive(ours)
}

// receive reads what [Server.give] writes.
func receive(conn *cmsg.Conn) (named []cmsg.Named, err error) {
	buf := make([]byte, 512)
	for {
		n, fds, err := conn.Read(buf)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			cmsg.CloseAll(fds)
			return named, fmt.Errorf("cannot fetch descriptors from the keeper: %w", err)
		}
		name := strings.TrimSuffix(string(buf[:n]), "\n")
		if name == "" {
			return named, nil
		}
		if len(fds) != 1 {
			cmsg.CloseAll(fds)
			return named, fmt.Errorf("cannot fetch descriptors from the keeper: %d descriptors for %q", len(fds), name)
		}
		named = append(named, cmsg.Named{Name: name, FD: fds[0]})
	}
}
