package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2run is a strict HTTP/2 load, frame by frame: a request counts from the moment that
// its HEADERS are on the wire, and must be answered, whatever GOAWAY says meanwhile. A
// session that is told to go is left for the next request, on a new one. (Clients with
// queues of their own refuse requests that were never sent; those are not ours.)
type h2run struct {
	addr string
	tick *time.Ticker // paces all clients together
	stop chan struct{}
	all  sync.WaitGroup

	mu       sync.Mutex // guards all below
	requests int
	goaways  map[uint32]int // by the last stream that they name
	failed   map[string]int
	more     chan struct{}
}

func startH2(addr string, clients int) *h2run {
	r := &h2run{addr: addr, tick: time.NewTicker(h2Pace()), stop: make(chan struct{}), goaways: map[uint32]int{}, failed: map[string]int{}, more: make(chan struct{}, 1)}
	for range clients {
		r.all.Go(r.client)
	}
	return r
}

// h2Pace is the time between two requests of a load; next to none with -long.
func h2Pace() time.Duration {
	if *long {
		return time.Microsecond
	}
	return time.Second / pace
}

func (r *h2run) client() {
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		if err := r.session(); err != nil {
			r.mu.Lock()
			r.failed[err.Error()]++
			r.mu.Unlock()
		}
	}
}

// writeGet writes a request.
func writeGet(f *http2.Framer, id uint32, path string) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}} {
		enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
}

// session asks until it is told to go.
func (r *h2run) session() error {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.WriteSettings()
	leave := false
	for id := uint32(1); !leave; id += 2 {
		select {
		case <-r.stop:
			return nil
		case <-r.tick.C:
		}
		if err := writeGet(f, id, "/"); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		r.mu.Lock()
		r.requests++
		r.mu.Unlock()
		select {
		case r.more <- struct{}{}:
		default:
		}
		for done := false; !done; {
			frame, err := f.ReadFrame()
			if err != nil {
				return fmt.Errorf("unanswered: %v", errKind(err))
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					f.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !frame.IsAck() {
					f.WritePing(true, frame.Data)
				}
			case *http2.GoAwayFrame:
				r.mu.Lock()
				r.goaways[frame.LastStreamID]++
				r.mu.Unlock()
				if leave = true; frame.LastStreamID < id {
					return fmt.Errorf("a GOAWAY leaves the request out")
				}
			case *http2.RSTStreamFrame:
				return fmt.Errorf("the stream was reset: %v", frame.ErrCode)
			case *http2.MetaHeadersFrame:
				if frame.PseudoValue("status") != "200" {
					return fmt.Errorf("status %s", frame.PseudoValue("status"))
				}
				done = frame.StreamEnded()
			case *http2.DataFrame:
				if n := uint32(len(frame.Data())); n > 0 {
					f.WriteWindowUpdate(0, n)
				}
				done = frame.StreamEnded()
			}
		}
	}
	return nil
}

func errKind(err error) string {
	if oe, ok := err.(*net.OpError); ok {
		return oe.Err.Error()
	}
	return err.Error()
}

// await waits for n more requests.
func (r *h2run) await(t *testing.T, n int) {
	t.Helper()
	late := time.After(testTimeout)
	r.mu.Lock()
	end := r.requests + n
	r.mu.Unlock()
	for {
		r.mu.Lock()
		enough := r.requests >= end
		r.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-r.more:
		case <-late:
			t.Fatal("the HTTP/2 load does not go on")
		}
	}
}

func (r *h2run) end() {
	close(r.stop)
	r.all.Wait()
	r.tick.Stop()
}

// A client that is slow to read the GOAWAY sends requests meanwhile. They are answered:
// the session ends when the client has answered the PING that follows it. And no answer
// stands before the GOAWAY: Node's client would refuse what it requests in between.
func TestHTTP2SlowClient(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{data("h2c.js")}})
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.WriteSettings()
	var ping *http2.PingFrame
	var goaway, answer uint32 // last stream of the last GOAWAY, stream of the last answer
	until := func(what string, ok func(http2.Frame) bool) {
		t.Helper()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatalf("no %s: %v", what, err)
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					f.WriteSettingsAck()
				}
			case *http2.PingFrame:
				ping = frame
			case *http2.GoAwayFrame:
				goaway = frame.LastStreamID
			case *http2.DataFrame:
				if frame.StreamEnded() {
					answer = frame.StreamID
				}
			}
			if ok(frame) {
				return
			}
		}
	}
	answered := func(id uint32, path string) {
		t.Helper()
		writeGet(f, id, path)
		until(fmt.Sprint("answer to request ", id), func(http2.Frame) bool { return answer == id })
	}
	answered(1, "/")
	w.reload()
	until("PING", func(http2.Frame) bool { return ping != nil })
	if goaway > 0 {
		t.Error("a GOAWAY before it is known that the client has read every answer")
	}
	writeGet(f, 3, "/") // is answered after the GOAWAY
	f.WritePing(true, ping.Data)
	until("GOAWAY", func(http2.Frame) bool { return goaway > 0 })
	if answer == 3 {
		t.Error("an answer before the GOAWAY")
	}
	until("answer to request 3", func(http2.Frame) bool { return answer == 3 })
	answered(5, "/?ms=700") // twice the time that it had before
	answered(7, "/")
	if goaway != 1<<31-1 {
		t.Errorf("GOAWAY %d", goaway)
	}
	f.WritePing(true, ping.Data)
	until("last GOAWAY", func(http2.Frame) bool { return goaway == 7 })
	c.Close()
	w.retired(1)
	w.stop()
}

// A client that is idle gets its GOAWAY behind its next request, which is waited for: what
// a timer of the client's requests in the moment in which it reads the GOAWAY is refused by
// the client itself.
func TestHTTP2IdleClient(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{data("h2c.js")}})
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.WriteSettings()
	writeGet(f, 1, "/")
	var answered time.Time // the last PING
	for asked := false; ; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			if frame.StreamEnded() && !asked {
				asked = true
				w.reload()
			}
		case *http2.PingFrame:
			answered = time.Now()
			f.WritePing(true, frame.Data)
		case *http2.GoAwayFrame:
			if waited := time.Since(answered); waited < 90*time.Millisecond {
				t.Errorf("it came %v after the PING's answer", waited)
			}
			w.retired(1)
			w.stop()
			return
		}
	}
}
