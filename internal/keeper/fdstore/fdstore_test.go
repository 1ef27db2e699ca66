package fdstore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

const testTimeout = 10 * time.Second // for failure only

// keeper is the server behind a real socket, and what it was told besides.
type keeper struct {
	t       *testing.T
	address string
	conn    *cmsg.Conn
	server  Server
	said    []Message
	pause   chan chan struct{} // a channel to wait for before the next message
	done    chan struct{}      // closed when it reads no more
}

func listen(t *testing.T, mirror Mirror, adopted ...cmsg.Named) *keeper {
	t.Helper()
	k := &keeper{t: t, address: filepath.Join(t.TempDir(), "k"), server: Server{Mirror: mirror}, pause: make(chan chan struct{}, 1), done: make(chan struct{})}
	k.server.Adopt(adopted...)
	var err error
	if k.conn, err = cmsg.Listen(k.address); err != nil {
		t.Fatal(err)
	}
	go k.serve() // ends with the socket
	return k
}

func (k *keeper) serve() {
	defer close(k.done)
	buf := make([]byte, 4096)
	for {
		m, err := k.conn.Receive(buf)
		if err != nil {
			return
		}
		select {
		case until := <-k.pause:
			<-until
		default:
		}
		msg := Parse(string(buf[:m.N]))
		if err := k.server.Handle(msg, m.FDs); err != nil {
			k.said = append(k.said, Message{Manager: err.Error()})
			continue
		}
		k.said = append(k.said, msg)
	}
}

// stop ends the server, closes what it holds, and returns what it was told.
func (k *keeper) stop() []Message {
	k.conn.Close()
	<-k.done
	for _, n := range slices.Clone(k.server.Held()) {
		k.server.Remove(n.Name)
	}
	return k.said
}

// holds gives what the keeper holds, by the way that a master asks: the names, and what
// files they stand for.
func (k *keeper) holds() string {
	k.t.Helper()
	all, err := TakeAll(k.address)
	if err != nil {
		k.t.Fatal(err)
	}
	var names []string
	for _, n := range all {
		to, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.FD))
		names = append(names, n.Name+"="+filepath.Base(to))
		unix.Close(n.FD)
	}
	return strings.Join(names, " ")
}

// file is an open file of a name.
func file(t *testing.T, name, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func dial(t *testing.T, k *keeper, onMute func(error)) *Client {
	t.Helper()
	c, err := Dial(k.address, onMute)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Stored, replaced, removed, kept again from the beginning: what the next master gets, and
// no descriptor is left.
func TestStore(t *testing.T) {
	a, b := file(t, "a", ""), file(t, "b", "")
	before := open(t)
	k := listen(t, nil)
	c := dial(t, k, nil)
	fd := func(f *os.File) int { return int(f.Fd()) }
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"nothing", func() {}, ""},
		{"stored", func() { c.Store("w1-pid", fd(a)); c.StoreFile("w1-stderr", b) }, "w1-pid=a w1-stderr=b"},
		{"replaced in its place", func() { c.Store("w1-pid", fd(b)) }, "w1-pid=b w1-stderr=b"},
		{"removed, and what is not there", func() { c.Remove("w1-stderr"); c.Remove("x") }, "w1-pid=b"},
		{"a name that would be two", func() { c.Store("x\ty:z", fd(a)) }, "w1-pid=b x_y_z=a"},
		{"no name, and one too long", func() { c.Store("", fd(a)); c.Store(strings.Repeat("x", 256), fd(a)) }, "w1-pid=b x_y_z=a"},
		{"without a descriptor, and with two", func() { c.Say("FDSTORE=1\nFDNAME=n"); c.Say("FDSTORE=1\nFDNAME=n", fd(a), fd(b)) }, "w1-pid=b x_y_z=a"},
		{"once more from the beginning", func() { c.Resync([]cmsg.Named{{Name: "w2-pid", FD: fd(a)}, {Name: "w1-pid", FD: fd(a)}}) }, "w1-pid=a w2-pid=a"},
		{"passed by a service manager", func() { c.Store(PassedPrefix+"0-web", fd(b)); c.Resync(nil) }, "passed-0-web=b"},
		{"an end without a beginning", func() { c.Say("X_END=1") }, "passed-0-web=b"},
	} {
		step.do()
		if got := k.holds(); got != step.want {
			t.Errorf("%s: it holds %q, want %q", step.what, got, step.want)
		}
	}
	c.Close()
	k.stop()
	if after := open(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// mirror notes what a second store is told.
type mirror []string

func (m *mirror) Store(name string, fd int) { *m = append(*m, "+"+name) }
func (m *mirror) Remove(name string)        { *m = append(*m, "-"+name) }

func TestMirror(t *testing.T) {
	var m mirror
	k := listen(t, &m, cmsg.Named{Name: "there", FD: dup(t, file(t, "there", ""))}) // it has that one
	c := dial(t, k, nil)
	f := file(t, "f", "")
	c.StoreFile("a", f)
	c.StoreFile("a", f)
	c.Remove("a")
	c.Flush()
	c.Close()
	k.conn.Close()
	<-k.done
	if want := []string{"+a", "+a", "-a"}; !slices.Equal(m, want) {
		t.Errorf("%q, want %q", m, want)
	}
	unix.Close(k.server.Take("there"))
	if fd := k.server.Take("there"); fd != -1 {
		t.Errorf("%d is there twice", fd)
	}
}

func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// What a master says besides comes through as it was meant.
func TestWords(t *testing.T) {
	k := listen(t, nil)
	if err := Announce(k.address); err != nil {
		t.Fatal(err)
	}
	c := dial(t, k, nil)
	c.Ready()
	c.Upgrading(true)
	c.Upgrading(false)
	c.StoreState(int(file(t, "record", "").Fd()), []unix.Signal{unix.SIGUSR2, unix.SIGHUP})
	c.StoreState(int(file(t, "record", "").Fd()), nil)
	c.NotifyManager("READY=1\nSTATUS=serves\nSTOPPING=1")
	c.Leaving()
	c.Stopping()
	c.Flush()
	c.Close()
	var got []string
	for _, m := range k.stop() {
		var s []string
		for what, is := range map[string]bool{"candidate": m.Candidate, "ready": m.Ready, "leaving": m.Leaving, "stopping": m.Stopping, "awaited": m.Upgrade == Awaited,
			"none awaited": m.Upgrade == NotAwaited, "took " + strings.Join(m.Took, ","): len(m.Took) > 0, fmt.Sprintf("manager %q", m.Manager): m.ForManager} {
			if is {
				s = append(s, what)
			}
		}
		slices.Sort(s)
		got = append(got, strings.Join(s, " and "))
	}
	want := []string{"candidate", "none awaited and ready", "awaited", "none awaited", "took SIGUSR2,SIGHUP", "",
		`manager "READY=1\nSTATUS=serves\nSTOPPING=1"`, "leaving", "stopping", ""}
	if !slices.Equal(got, want) {
		t.Errorf("it heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestProgram(t *testing.T) {
	k := listen(t, nil)
	defer k.stop()
	if text, err := ReadProgram(k.address); text != nil || err != nil {
		t.Errorf("%q, %v of none", text, err)
	}
	c := dial(t, k, nil)
	defer c.Close()
	c.StoreFile(State, file(t, "record", "secret"))
	c.StoreFile(Program, file(t, "program", "what to run"))
	if text, err := ReadProgram(k.address); string(text) != "what to run" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// A keeper that does not read keeps nobody waiting but once; when it reads again it is
// told everything.
func TestMute(t *testing.T) {
	before := open(t)
	k := listen(t, nil)
	muted := make(chan error, 10)
	c := dial(t, k, func(why error) { muted <- why })
	c.timeout = 20 * time.Millisecond
	goOn := make(chan struct{})
	k.pause <- goOn
	a := file(t, "a", "")
	now := time.Unix(0, 0)
	if c.Mute() || !c.Deadline().IsZero() || c.Tick(now) {
		t.Error("it is mute from the beginning")
	}
	n := 0
	for c.Store(fmt.Sprintf("a%d", n), int(a.Fd())) == nil { // until its queue is full
		n++
	}
	if err := <-muted; err == nil || !c.Mute() {
		t.Errorf("%v, mute %v", err, c.Mute())
	}
	began := time.Now()
	for range 100 {
		if err := c.Say("X"); err != ErrMute {
			t.Fatalf("%v", err)
		}
	}
	c.Flush()
	if took := time.Since(began); took > testTimeout/2 {
		t.Errorf("a mute keeper has kept its master waiting for %v", took)
	}
	if c.Tick(now) || c.Deadline() != now.Add(probeEvery) || c.Tick(now.Add(probeEvery/2)) {
		t.Errorf("it responds; the next time is %v", c.Deadline())
	}
	close(goOn)
	for now = c.Deadline(); !c.Tick(now); now = c.Deadline() {
	}
	if c.Mute() || !c.Deadline().IsZero() {
		t.Error("it responds and is mute")
	}
	c.timeout = testTimeout
	c.Resync([]cmsg.Named{{Name: "b", FD: int(a.Fd())}})
	if got := k.holds(); got != "b=a" {
		t.Errorf("it holds %q", got)
	}
	if len(muted) > 0 {
		t.Errorf("it is mute once more: %v", <-muted)
	}
	c.Close()
	k.stop()
	a.Close()
	if after := open(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// Flush returns when everything was handled, and not before.
func TestFlush(t *testing.T) {
	k := listen(t, nil)
	c := dial(t, k, nil)
	defer c.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.StoreFile("w", w)
	w.Close()
	c.Remove("w")
	c.Flush()
	poll := []unix.PollFd{{Fd: int32(r.Fd())}}
	if unix.Poll(poll, 0); poll[0].Revents&unix.POLLHUP == 0 {
		t.Error("what was removed is open")
	}
	k.stop()
}

// Without a keeper nothing is held, and nothing fails.
func TestNoKeeper(t *testing.T) {
	c, err := Dial("", nil)
	if c != nil || err != nil {
		t.Fatalf("%v, %v", c, err)
	}
	c.Ready()
	c.Remove("a")
	c.Resync(nil)
	c.Flush()
	c.Close()
	if err := c.Store("a", 0); err != nil || c.Mute() || c.Tick(time.Now()) || !c.Deadline().IsZero() {
		t.Errorf("%v", err)
	}
	if _, err := TakeAll(""); err == nil {
		t.Error("everything is taken from nobody")
	}
	if err := Announce(""); err != nil {
		t.Error(err)
	}
	if _, err := Dial(filepath.Join(t.TempDir(), "none"), nil); err == nil || !strings.HasPrefix(err.Error(), "cannot reach the keeper: ") {
		t.Errorf("%v", err)
	}
}

// A keeper that does not believe who asks closes the socket; one that is cut off midway
// has given what it has.
func TestNotGiven(t *testing.T) {
	before := open(t)
	for answer, want := range map[string]string{"": "", "a": "a", "a\n\n": "a", "two": ""} {
		ours, theirs, err := cmsg.Pair()
		if err != nil {
			t.Fatal(err)
		}
		fd, _ := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		theirs.Close()
		peer, err := cmsg.Open(fd)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { // ends with the answer
			null, _ := os.Open(os.DevNull)
			switch answer {
			case "two":
				peer.Write([]byte("two\n"), int(null.Fd()), int(null.Fd()))
			case "":
			default:
				peer.Write([]byte("a\n"), int(null.Fd()))
			}
			null.Close() // before the answer: descriptors are counted after it
			done <- peer.Close()
		}()
		named, err := receive(ours)
		<-done
		if err == nil {
			t.Errorf("%q: no error", answer)
		}
		var names []string
		for _, n := range named {
			names = append(names, n.Name)
			unix.Close(n.FD)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q: got %q, want %q", answer, got, want)
		}
		ours.Close()
	}
	if after := open(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// A master that asks and does not read is given up, in its time.
func TestGiveToNobody(t *testing.T) {
	var s Server
	s.GiveTimeout = time.Millisecond
	for i := range 1000 {
		s.Store(fmt.Sprintf("%d%s", i, strings.Repeat("x", 200)), dup(t, file(t, "f", "")))
	}
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	fd, _ := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	theirs.Close()
	if err := s.Handle(Parse("X_GIVE=1"), []int{fd}); err == nil || !strings.HasPrefix(err.Error(), "cannot pass the stored descriptors to the new master: ") {
		t.Errorf("%v", err)
	}
	for _, n := range slices.Clone(s.Held()) {
		s.Remove(n.Name)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add("FDSTORE=1\nFDNAME=w1-pid\nX_TOOK=SIGHUP,")
	f.Fuzz(func(t *testing.T, text string) {
		m := Parse(text)
		if slices.Contains(m.Took, "") || m.ForManager && (m.Ready || m.store) {
			t.Errorf("%q: %+v", text, m)
		}
		if name := CleanName(m.name); strings.ContainsAny(name, ":\n ") {
			t.Errorf("%q: name %q", text, name)
		}
	})
}
