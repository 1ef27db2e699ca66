package fdstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Client is a master's connection to its keeper. A nil Client is that of a master without
// keeper: nothing is stored. Tick and Deadline belong to the master's loop; the other
// methods may be called from any goroutine.
type Client struct {
	conn *cmsg.Conn
	// mute: the keeper has not read a message, and gets no more, so that a stopped keeper
	// (Ctrl-Z) does not block the master.
	mute    atomic.Bool
	onMute  func(why error)
	timeout time.Duration // readTimeout, except in tests
	probeAt time.Time     // when a mute keeper is probed next

	mu   sync.Mutex // guards held, for a moment
	held map[string]bool
}

const (
	// readTimeout is how long the keeper may take to read. It does nothing else, so a
	// longer wait means that it is stopped.
	readTimeout  = time.Second
	probeEvery   = time.Second
	probeTimeout = 10 * time.Millisecond
	// giveTimeout is how long the keeper may take to send the store.
	giveTimeout = 10 * time.Second
)

// ErrMute means that the keeper does not read its messages.
var ErrMute = errors.New("the keeper does not respond")

// Dial connects to the keeper at an address; "" is none, for which the Client is nil.
// onMute is called when the keeper becomes mute, in any goroutine. held is what the keeper
// holds already. The caller closes the Client.
func Dial(address string, onMute func(why error), held ...cmsg.Named) (*Client, error) {
	if address == "" {
		return nil, nil
	}
	c, err := cmsg.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the keeper: %w", err)
	}
	client := &Client{conn: c, onMute: onMute, timeout: readTimeout}
	client.hold(held)
	return client, nil
}

// hold notes what the keeper holds.
func (c *Client) hold(all []cmsg.Named) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = make(map[string]bool, len(all))
	for _, n := range all {
		c.held[n.Name] = true
	}
}

// Room reports why another worker should not be started: the keeper, or the next master,
// would have no descriptors left. workers are those that there are.
func (c *Client) Room(workers int) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return room(limit(), c.held, workers)
}

// Close closes the connection.
func (c *Client) Close() {
	if c != nil {
		c.conn.Close()
	}
}

// Mute reports whether the keeper does not read.
func (c *Client) Mute() bool { return c != nil && c.mute.Load() }

// Deadline is when Tick must be called; zero: never.
func (c *Client) Deadline() time.Time {
	if !c.Mute() {
		return time.Time{}
	}
	return c.probeAt
}

// Tick probes a mute keeper once a second, and reports whether it responds again. Then
// everything must be sent again, see [Client.Resync].
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

// Say sends a message, with descriptors, which the caller still owns.
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

// Ready reports that this master handles signals from now on, and will say Runs.
func (c *Client) Ready() { c.Say("READY=1\nX_UPGRADE=0\nX_RUNS=0") }

// Runs reports that this master's loop handles events.
func (c *Client) Runs() { c.Say("X_RUNS=1") }

// Upgrading reports whether this master has started a candidate.
func (c *Client) Upgrading(yes bool) {
	if yes {
		c.Say("X_UPGRADE=1")
	} else {
		c.Say("X_UPGRADE=0")
	}
}

// Stopping reports that this master's exit is intended.
func (c *Client) Stopping() { c.Say("STOPPING=1") }

// Leaving reports that this master leaves for its candidate.
func (c *Client) Leaving() { c.Say("X_LEAVING=1") }

// NotifyManager sends a notice to the service manager, through the keeper, which is the
// main process of the service.
func (c *Client) NotifyManager(text string) { c.Say("X_UP=1\n" + text) }

// Store stores a duplicate of fd under a name, replacing an earlier one.
func (c *Client) Store(name string, fd int) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	c.held[name] = true
	c.mu.Unlock()
	return c.Say(storeText(name), fd)
}

func storeText(name string) string { return "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name }

// StoreState is Store for the record, and acknowledges signals in the same message, so
// that a signal is never both in the record and sent to the next master.
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

// StoreFile is Store for a Go file or socket.
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

// Remove closes the descriptor stored under a name.
func (c *Client) Remove(name string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	delete(c.held, name)
	c.mu.Unlock()
	c.Say("FDSTOREREMOVE=1\nFDNAME=" + name)
}

// Resync replaces the store by these descriptors (except the sockets of a service
// manager). Until it is complete the keeper holds at least the previous ones. The caller
// still owns the descriptors.
func (c *Client) Resync(all []cmsg.Named) {
	if c == nil {
		return
	}
	c.hold(nil)
	c.Say("X_BEGIN=1")
	for _, n := range all {
		c.Store(n.Name, n.FD)
	}
	c.Say("X_END=1")
	c.Runs() // the loop calls this, and it may not have been heard before
}

// Flush waits until the keeper has handled all messages, at most a second.
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
	r.Read(make([]byte, 1)) // the keeper's end
}

// Announce reports that this process may become the master.
func Announce(address string) error {
	c, err := Dial(address, nil)
	if err != nil || c == nil {
		return err
	}
	defer c.Close()
	return c.conn.Write([]byte("X_CANDIDATE=1"))
}

// TakeAll fetches duplicates of the whole store. The caller owns them, also after an
// error.
func TakeAll(address string) ([]cmsg.Named, error) { return take(address, "") }

// ReadProgram fetches the last [Program]; nil if there is none.
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
