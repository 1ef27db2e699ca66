package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/lingertest"
	"handoff/master/contract"
	"handoff/master/contract/contracttest"
	"handoff/master/listeners"
)

// world is a primary, and the loop around it.
type world struct {
	*contracttest.Loop
	primary  *Primary
	recorded []string // events
}

func start(t *testing.T) *world {
	w := &world{Loop: contracttest.New(t)}
	w.primary = New(w.Loop, 100, nil)
	w.Queued, w.Accepted, w.Retry = w.primary.Queued, w.primary.Accepted, w.primary.Retry
	return w
}

// worker is a Node program at the other end of its channel, by a script.
type worker struct {
	w       *world
	id      listeners.Worker
	session *Session
	conn    *cmsg.Conn
	lines   []string // heard, not asked for yet
	partial string
	fds     []int // likewise
}

func (w *world) worker(id listeners.Worker, slot int) *worker {
	w.T.Helper()
	ours, theirs := w.pair()
	return w.attend(w.primary.Start(w.Worker(id, slot, 0), ours), id, theirs)
}

func (w *world) pair() (ours, theirs *cmsg.Conn) {
	w.T.Helper()
	ours, file, err := cmsg.Pair()
	if err != nil {
		w.T.Fatal(err)
	}
	fd, _ := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	file.Close()
	if theirs, err = cmsg.Open(fd); err != nil {
		w.T.Fatal(err)
	}
	return ours, theirs
}

func (w *world) attend(s contract.Session, id listeners.Worker, theirs *cmsg.Conn) *worker {
	n := &worker{w: w, id: id, session: s.(*Session), conn: theirs}
	w.Sessions[id] = s
	served := make(chan struct{})
	go func() { // ends with the conn
		s.Serve()
		close(served)
	}()
	w.T.Cleanup(func() {
		theirs.Close()
		<-served
		s.End()
		cmsg.CloseAll(n.fds)
	})
	return n
}

// say sends a line; descriptors go with it.
func (n *worker) say(line string, fds ...int) {
	n.w.T.Helper()
	if err := n.conn.Write([]byte(line+"\n"), fds...); err != nil {
		n.w.T.Fatal(err)
	}
}

func (n *worker) cluster(act, more string) {
	n.w.T.Helper()
	n.say(`{"cmd":"NODE_CLUSTER","act":"` + act + `"` + more + `}`)
}

// message is what a worker hears.
type message struct {
	Cmd, Act, Key, Type string
	Ack, Errno, Seq     int
	Data                json.RawMessage
	Msg                 *message
	fd                  int // -1: none
}

// hear is the next message; the loop goes on meanwhile.
func (n *worker) hear() message {
	n.w.T.Helper()
	line := n.line()
	m := message{fd: -1}
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		n.w.T.Fatalf("%q: %v", line, err)
	}
	if m.Msg != nil {
		inner := *m.Msg
		inner.Type, inner.fd = m.Type, -1
		if len(n.fds) > 0 {
			inner.fd, n.fds = n.fds[0], n.fds[1:]
		}
		return inner
	}
	return m
}

func (n *worker) line() string {
	n.w.T.Helper()
	buf := make([]byte, 64<<10)
	n.w.Until("a line", func() bool {
		n.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		k, fds, _ := n.conn.Read(buf)
		n.fds = append(n.fds, fds...)
		all := strings.Split(n.partial+string(buf[:k]), "\n")
		n.partial, n.lines = all[len(all)-1], append(n.lines, all[:len(all)-1]...)
		return len(n.lines) > 0
	})
	line := n.lines[0]
	n.lines = n.lines[1:]
	return line
}

// silent tells whether nothing more has come by the time that the answer to a message
// that is sent now has.
func (n *worker) silent() bool {
	n.w.T.Helper()
	before := len(n.session.queue.held)
	n.say(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{}}`) // answered, behind what is in flight
	n.w.Until("the receipt is held", func() bool { return len(n.session.queue.held) > before })
	return len(n.lines) == 0
}

func (n *worker) ack() { n.say(`{"cmd":"NODE_HANDLE_ACK"}`) }

// listen asks for a port and listens there.
func (n *worker) listen(port, index int) (m message) {
	n.w.T.Helper()
	n.cluster("queryServer", fmt.Sprintf(`,"address":"127.0.0.1","port":%d,"addressType":4,"index":%d,"seq":5`, port, index))
	m = n.hear()
	if m.Errno != 0 || m.fd < 0 || m.Ack != 5 {
		n.w.T.Fatalf("%+v", m)
	}
	n.ack()
	n.cluster("listening", fmt.Sprintf(`,"address":"127.0.0.1","port":%d,"addressType":4,"index":%d`, portOf(m.fd), index))
	n.w.Await(fmt.Sprint(n.id, " Listening"))
	return m
}

func portOf(fd int) int {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return -1
	}
	return sa.(*unix.SockaddrInet4).Port
}

func dial(t *testing.T, port int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The life of a worker, from its boot to its end.
func TestLife(t *testing.T) {
	w := start(t)
	w.primary.record = func(line []byte, wait bool) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil || e.Worker != 1 || e.Slot != 0 || e.Generation != 1 {
			t.Errorf("%s: %v", line, err)
		}
		said := e.Event + string(e.Message)
		if e.Address != nil {
			said += fmt.Sprint(" ", *e.Address.Address, " ", e.Address.AddressType)
		}
		w.Post(func() { w.recorded = append(w.recorded, said) })
	}
	n := w.worker(1, 0)
	w.Table.SetTargets([]listeners.Worker{1})
	n.cluster("online", "")
	w.Await("1 Started")
	m := n.listen(0, 0)
	if m.Key == "" || m.Type != "net.Native" || string(m.Data) != "" {
		t.Errorf("%+v", m)
	}
	a := w.Table.ByKey(m.Key)
	if a == nil || !a.Accepts(1) {
		t.Fatalf("the worker does not listen: %+v", a)
	}
	dial(t, portOf(m.fd))
	unix.SetNonblock(m.fd, false)
	if c, _, err := unix.Accept(m.fd); err != nil {
		t.Error(err)
	} else {
		unix.Close(c)
	}
	unix.Close(m.fd)
	n.say(`"ready"`)
	w.Await("1 Ready")
	n.say(`{"cmd":"handoff:requests","requests":7}`)
	w.Await("1 Requests 7")
	n.say(`{"hello":1}`)
	n.say(`{"cmd":"disconnect"}`)
	w.Await("1 Leaving")
	n.cluster("exitedAfterDisconnect", `,"seq":3`)
	w.Await("1 Leaving")
	if m := n.hear(); m.Ack != 3 {
		t.Errorf("%+v", m)
	}
	n.session.Drain(contract.Drain{Message: "shutdown"})
	if got := []string{n.line(), n.line(), n.line(), n.line()}; strings.Join(got, " ") !=
		`{"cmd":"NODE_HANDOFF","act":"drain","message":"shutdown"} {"cmd":"disconnect"} "shutdown" {"cmd":"NODE_CLUSTER","act":"disconnect","seq":101}` {
		t.Errorf("drain: %q", got)
	}
	if w.primary.Seq() != 101 {
		t.Errorf("seq %d", w.primary.Seq())
	}
	n.cluster("close", `,"key":"`+m.Key+`"`)
	w.Until("released", func() bool { return a.LeaseOf(1) == nil })
	if w.Table.ByKey(m.Key) == nil {
		t.Error("an address that was just closed is not kept for who asks for it again")
	}
	n.conn.Close()
	w.Await("1 Disconnected")
	if err := n.session.Send([]byte(`{}`)); err != ErrNoChannel {
		t.Errorf("a message to a worker without a channel: %v", err)
	}
	n.session.Kept(func(what string, fd int) { t.Errorf("descriptor %d is kept as its %s", fd, what) })
	want := `node.online|node.listening 127.0.0.1 4|node.message"ready"|node.message{"cmd":"handoff:requests","requests":7}|` +
		`node.message{"hello":1}|node.message{"cmd":"disconnect"}|node.disconnect`
	w.Until("recorded", func() bool { return len(w.recorded) == 7 })
	if got := strings.Join(w.recorded, "|"); got != want {
		t.Errorf("recorded %s\nwant     %s", got, want)
	}
	if n.session.Busy() {
		t.Error("busy")
	}
}

// What a worker gets for what it asks.
func TestQueries(t *testing.T) {
	w := start(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := taken.Addr().(*net.TCPAddr).Port
	plain, _ := os.Open(os.DevNull)
	defer plain.Close()
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	n := w.worker(1, 0)
	for _, c := range []struct {
		query string
		errno unix.Errno
		key   string // its beginning
		typ   string
		data  string
		fact  string
	}{
		{`"address":"127.0.0.1","port":0,"addressType":4,"data":{"ticketKeys":"ab"}`, 0, "1", "net.Native", `{"ticketKeys":"ab"}`, ""},
		{`"address":"127.0.0.1","port":0,"addressType":4`, unix.EADDRINUSE, "refused", "", "", "1 Refused 0: address already in use"}, // once more, the same
		{`"address":null,"port":0,"addressType":4,"index":1`, 0, "2", "net.Native", "", ""},
		{fmt.Sprintf(`"address":"127.0.0.1","port":%d,"addressType":4`, inUse), unix.EADDRINUSE, "refused", "", "", fmt.Sprintf("1 Refused %d: cannot bind", inUse)},
		{`"address":"::1","port":0,"addressType":6,"flags":1`, 0, "", "net.Native", "", ""},
		{`"address":"127.0.0.1","port":0,"addressType":"udp4"`, 0, "", "dgram.Native", "", ""},
		{`"address":"s","port":-1,"addressType":-1`, 0, "", "net.Native", "", ""},
		{`"address":"%%","port":1,"addressType":4`, unix.EINVAL, "refused", "", "", "1 Refused 1: invalid argument"},
		{`"port":0,"addressType":4,"index":9,"data":"` + strings.Repeat("x", 2000) + `"`, unix.E2BIG, "refused", "", "", ""},
		{fmt.Sprintf(`"addressType":4,"fd":%d`, own), 0, "own-5", "net.Native", "", ""},
		{fmt.Sprintf(`"addressType":4,"fd":%d`, plain.Fd()), unix.EINVAL, "refused", "", "", ""},
		{`"addressType":4,"fd":99999`, unix.EBADF, "refused", "", "", ""},
	} {
		n.cluster("queryServer", `,"seq":5,`+c.query)
		m := n.hear()
		if m.Errno != -int(c.errno) || !strings.HasPrefix(m.Key, c.key) || m.Type != c.typ || m.Ack != 5 || string(m.Data) != c.data || (m.fd >= 0) != (c.errno == 0) {
			t.Errorf("%s\n is answered %+v", c.query, m)
		}
		if m.fd >= 0 {
			unix.Close(m.fd)
			n.ack()
		}
		if c.fact != "" {
			w.Await(c.fact)
		}
	}
	if _, err := os.Stat(filepath.Join(n.session.Dir, "s")); err != nil {
		t.Error(err)
	}
	n.cluster("listening", `,"address":"s","port":-1,"addressType":-1`)
	w.Await("1 Listening")

	n.session.Died()
	n.cluster("queryServer", `,"seq":6,"address":"127.0.0.1","port":0,"addressType":4,"index":7`)
	n.cluster("listening", `,"address":"127.0.0.1","port":1,"addressType":4`)
	w.Await("1 Listening")
	if got := w.Table.Count(1); got != 5 {
		t.Errorf("a dead worker has %d addresses, want 5", got)
	}
	if len(w.Facts) > 0 {
		t.Errorf("facts %q", w.Facts)
	}
}

func TestAsManyAddressesAsAllowed(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	for i := range contract.MaxLeases {
		if _, err := w.Table.Lease(1, 0, listeners.Endpoint{Addr: "127.0.0.1", Index: i}, nil); err != nil {
			t.Fatal(err)
		}
	}
	n.cluster("queryServer", `,"address":"127.0.0.1","port":0,"addressType":4,"index":1000,"seq":5`)
	if m := n.hear(); m.Errno != -int(unix.EMFILE) {
		t.Errorf("one address too many: %+v", m)
	}
}

// A worker that listens on ever new ports, and closes them, does not fill the table.
func TestClosedAddressesAreBounded(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	var last message
	for i := range 3 * maxUnused {
		m := n.listen(0, i)
		unix.Close(m.fd)
		n.cluster("close", `,"key":"`+m.Key+`"`)
		last = m
	}
	w.Until("closed", func() bool { return w.Table.Count(1) == 0 })
	if got := len(w.Table.Addresses()); got != maxUnused {
		t.Errorf("%d addresses are kept, want %d", got, maxUnused)
	}
	if w.Table.ByKey(last.Key) == nil {
		t.Error("the last one is not")
	}
	// The same one, over and over, is one.
	for range 2 * maxUnused {
		m := n.listen(0, 1000)
		unix.Close(m.fd)
		n.cluster("close", `,"key":"`+m.Key+`"`)
		w.Until("closed", func() bool { return w.Table.Count(1) == 0 })
		if last.Key = m.Key; w.Table.ByKey(m.Key) == nil {
			t.Fatal("an address that is closed and asked for again is not kept")
		}
	}
	n.cluster("close", `,"key":"nonsense"`)
	n.say(`"ready"`)
	w.Await("1 Ready")
}

func TestMessages(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	if err := n.session.Send(json.RawMessage(`{ "a" : 1 }`)); err != nil || n.line() != `{"a":1}` {
		t.Error(err)
	}
	if err := n.session.Send(json.RawMessage(`{"cmd":"NODE_CLUSTER"}`)); !errors.Is(err, ErrReserved) || !strings.Contains(err.Error(), "NODE_") {
		t.Error(err)
	}
	var err error
	for range maxQueued + maxHeld {
		if err = n.session.Send(json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`)); err != nil {
			break
		}
	}
	if err != ErrBusy {
		t.Errorf("a worker that does not read: %v", err)
	}
	if len(w.Facts) > 0 {
		t.Errorf("facts %q", w.Facts)
	}
}

// What is not understood is said a few times, and the worker serves on.
func TestProtocolErrors(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	go func() { // the channel is full meanwhile
		n.say(strings.Repeat("x", 3<<20))
		for range 20 {
			n.say("{")
			n.cluster("queryServer", `,"addressType":17`)
		}
		n.say(`"ready"`)
	}()
	w.Await("1 Ready")
	if got := w.Await("1 ProtocolError"); !strings.Contains(got, "1 MiB") {
		t.Error(got)
	}
	if len(w.Facts) != contract.MaxReports-1 {
		t.Errorf("%q", w.Facts)
	}
}

// Descriptors that a worker sends are taken and closed; one whose close takes long holds
// up its own worker alone.
func TestDescriptorsOfAWorker(t *testing.T) {
	w := start(t)
	n, other := w.worker(1, 0), w.worker(2, 1)
	var pipe [2]int
	unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	defer unix.Close(pipe[0])
	n.say(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"cmd":"ready"}}`, pipe[1], pipe[1], pipe[1])
	unix.Close(pipe[1])
	w.Await("1 Ready")
	if m := n.hear(); m.Cmd != "NODE_HANDLE_ACK" {
		t.Errorf("%+v", m)
	}
	if k, err := unix.Read(pipe[0], make([]byte, 1)); k != 0 || err != nil {
		t.Errorf("the descriptors are still open: %d, %v", k, err)
	}

	lingering, undo := lingertest.Socket(t)
	n.say(`"nothing"`, lingering)
	go unix.Close(lingering)
	n.say(`{"cmd":"disconnect"}`)
	other.cluster("online", "")
	w.Await("2 Started")
	undo()
	w.Await("1 Leaving")

	// One that the worker serves on, and closes before the master does.
	lingering, undo = lingertest.Socket(t)
	n.cluster("queryServer", fmt.Sprintf(`,"seq":5,"addressType":4,"fd":%d`, lingering))
	m := n.hear()
	unix.Close(m.fd)
	unix.Close(lingering) // what the master has is the last one
	n.ack()
	w.Until("acknowledged", func() bool { return n.session.queue.inFlight == nil })
	other.listen(0, 0)
	undo()
}

// A channel is closed with what nobody has read from it: a descriptor whose close takes
// long holds up nobody.
func TestUnreadDescriptors(t *testing.T) {
	w := start(t)
	ours, theirs := w.pair()
	s := w.primary.Start(w.Worker(1, 0, 0), ours)
	lingering, undo := lingertest.Socket(t)
	defer undo()
	if err := theirs.Write([]byte("1\n"), lingering); err != nil {
		t.Fatal(err)
	}
	unix.Close(lingering)
	theirs.Close()
	began := time.Now()
	s.Died()
	s.End()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the loop has waited %v", took)
	}
}

// A worker closes no address but its own: neither by another's key, nor by closing more
// than are kept.
func TestCloseOfOthers(t *testing.T) {
	w := start(t)
	n, other := w.worker(1, 0), w.worker(2, 1)
	theirs := other.listen(0, 0)
	unix.Close(theirs.fd)
	address := w.Table.ByKey(theirs.Key)
	for range 2 * maxUnused {
		n.cluster("close", `,"key":"`+theirs.Key+`"`)
	}
	n.say(`"ready"`)
	w.Await("1 Ready")
	if !address.Accepts(2) {
		t.Error("the address of another is closed")
	}

	n.cluster("queryServer", `,"address":"127.0.0.1","port":0,"addressType":4,"index":0,"seq":6`)
	if m := n.hear(); m.Key != theirs.Key {
		t.Fatalf("%+v, want the other's", m)
	} else {
		unix.Close(m.fd)
	}
	n.ack()
	n.cluster("close", `,"key":"`+theirs.Key+`"`)
	w.Table.ReleaseAll(2, time.Now()) // it has crashed: another follows
	for i := range 2 * maxUnused {
		m := n.listen(0, i+1)
		unix.Close(m.fd)
		n.cluster("close", `,"key":"`+m.Key+`"`)
	}
	n.say(`"ready"`)
	w.Await("1 Ready")
	if w.Table.ByKey(theirs.Key) == nil {
		t.Error("the address of one that has crashed is closed")
	}
	if open := len(w.Table.Addresses()); open > 1+maxUnused {
		t.Errorf("%d addresses are open", open)
	}
}
