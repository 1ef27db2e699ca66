package sdnotify

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testTimeout = 10 * time.Second // for failure only

// heard is a server with what it has heard.
type heard struct {
	t       *testing.T
	address string
	news    chan Notice
	stop    func()
}

func serve(t *testing.T, believe func(int) bool, draining func() (bool, func())) *heard {
	t.Helper()
	c, address, err := Place{Dir: t.TempDir(), UID: os.Geteuid()}.Listen()
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{t: t, address: address, news: make(chan Notice, 100)}
	s := &Server{Conn: c, Believe: believe, News: func(n Notice) { h.news <- n }, Draining: draining}
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		s.Serve()
	}()
	h.stop = func() { c.Close(); <-done }
	t.Cleanup(h.stop)
	return h
}

func (h *heard) next() Notice {
	h.t.Helper()
	select {
	case n := <-h.news:
		return n
	case <-time.After(testTimeout):
		h.t.Fatal("nothing is heard")
		return Notice{}
	}
}

func myself(pid int) bool { return pid == os.Getpid() }

func TestServer(t *testing.T) {
	before := descriptors(t)
	h := serve(t, myself, nil)
	if err := SendAndWait(h.address, "READY=1\x00", testTimeout); err != nil {
		t.Fatal(err)
	}
	if n := h.next(); n != (Notice{Ready: true}) {
		t.Errorf("%+v", n)
	}
	// What is said again is no news; the last status of many comes without being asked for.
	for _, text := range []string{"READY=1", "STATUS=a", "STATUS=b", "STATUS=c"} {
		if err := Send(h.address, text); err != nil {
			t.Fatal(err)
		}
	}
	for last := ""; last != "c"; {
		n := h.next()
		if n.Ready || n.State == nil {
			t.Fatalf("%+v", n)
		}
		last = n.State.Status
	}
	// A datagram that is longer than any that means something.
	Send(h.address, "STOPPING=1\nSTATUS="+strings.Repeat("x", 1<<13))
	// Descriptors for a store that is none are closed; the wish is known.
	r, w, _ := os.Pipe()
	Send(h.address, "FDSTORE=1\nFDNAME=x", int(w.Fd()))
	w.Close()
	if n := h.next(); n != (Notice{Stores: true}) {
		t.Errorf("%+v", n)
	}
	r.SetReadDeadline(time.Now().Add(testTimeout))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("what was to be stored is not closed: %v", err)
	}
	r.Close()
	h.stop()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

// Who is not believed is not heard, and not kept waiting.
func TestStranger(t *testing.T) {
	asked := make(chan int, 10)
	h := serve(t, func(pid int) bool { asked <- pid; return false }, nil)
	if err := SendAndWait(h.address, "READY=1", testTimeout); err != nil {
		t.Fatal(err)
	}
	if pid := <-asked; pid != os.Getpid() {
		t.Errorf("the sender is %d, want %d", pid, os.Getpid())
	}
	if AskDraining(h.address, testTimeout) {
		t.Error("a stranger is told to drain")
	}
	h.stop()
	if len(h.news) > 0 {
		t.Errorf("%+v is believed", <-h.news)
	}
}

func TestAskDraining(t *testing.T) {
	told := make(chan struct{}, 2)
	answers := make(chan bool, 2)
	h := serve(t, myself, func() (bool, func()) { return <-answers, func() { told <- struct{}{} } })
	for _, want := range []bool{true, false} {
		answers <- want
		if got := AskDraining(h.address, testTimeout); got != want {
			t.Errorf("%v, want %v", got, want)
		}
		<-told
	}
	h.stop()
	if !AskDraining(h.address, testTimeout) {
		t.Error("where nobody listens, a signal is the order")
	}
}

// Where a supervisor does not look, nobody waits for ever.
func TestNobodyLooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := SendAndWait(path, "READY=1", time.Millisecond); err == nil || !strings.Contains(err.Error(), "within 1ms") {
		t.Errorf("%v", err)
	}
	if !AskDraining(path, time.Millisecond) {
		t.Error("without an answer, a signal is the order")
	}
	if err := Send(path+"x", "READY=1"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
