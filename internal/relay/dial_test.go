package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// seenBy returns the address that the program sees when a client's connection is relayed.
func seenBy(t *testing.T, listen, from string, mode Mode) (seen, client net.Addr, err error) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	to := l.Addr().(*net.TCPAddr)
	if to.IP.IsUnspecified() {
		to = &net.TCPAddr{IP: net.ParseIP(from), Port: to.Port}
	}
	c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(from)}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	owned, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer owned.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, err := DialFrom(ctx, owned, mode)
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	p, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.LocalAddr().String() != owned.LocalAddr().String() {
		t.Errorf("connected to %s, the client to %s", p.LocalAddr(), owned.LocalAddr())
	}
	return p.RemoteAddr(), owned.RemoteAddr(), nil
}

func TestDialFromTheClientsAddress(t *testing.T) {
	for _, row := range []struct{ listen, from string }{
		{"127.0.0.1:0", "127.0.0.1"},
		{"127.0.0.1:0", "127.0.0.77"},
		{"0.0.0.0:0", "127.0.0.78"},
		{"[::]:0", "127.0.0.79"},
		{"[::1]:0", "::1"},
		{"[::]:0", "::1"},
	} {
		for _, mode := range []Mode{Local, All} {
			seen, client, err := seenBy(t, row.listen, row.from, mode)
			if err != nil {
				t.Errorf("%v: %v", row, err)
				continue
			}
			if s, c := seen.(*net.TCPAddr), client.(*net.TCPAddr); mode == Local && !s.IP.Equal(c.IP) {
				t.Errorf("%v: the program sees %s instead of %s", row, s, c)
			}
		}
	}
}

// remote is a connection whose client is elsewhere.
type remote struct {
	net.Conn
	from net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.from }

func TestRemoteIsNeverMadeLocal(t *testing.T) {
	l := listen(t, func(c *net.TCPConn) { c.Close() })
	for _, from := range []net.Addr{
		&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 9},
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 9},
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "lo", Port: 9},
		&net.TCPAddr{IP: net.IPv4zero, Port: 9},
		&net.TCPAddr{IP: net.IPv6zero, Port: 9},
		&net.TCPAddr{IP: net.ParseIP("224.0.0.1"), Port: 9},
		&net.UnixAddr{Name: "x", Net: "unix"},
	} {
		w, err := DialFrom(t.Context(), remote{accepted{l.Addr()}, from}, Local)
		if !errors.Is(err, ErrNotLocal) {
			t.Errorf("%s: %v, %v", from, w, err)
		}
	}
}

// accepted is a connection of which only the address is asked.
type accepted struct{ to net.Addr }

func (a accepted) LocalAddr() net.Addr              { return a.to }
func (a accepted) RemoteAddr() net.Addr             { return nil }
func (a accepted) Read([]byte) (int, error)         { return 0, io.EOF }
func (a accepted) Write([]byte) (int, error)        { return 0, io.EOF }
func (a accepted) Close() error                     { return nil }
func (a accepted) SetDeadline(time.Time) error      { return nil }
func (a accepted) SetReadDeadline(time.Time) error  { return nil }
func (a accepted) SetWriteDeadline(time.Time) error { return nil }

func TestDialUnix(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "s"), "@handoff-relay-test"} {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		owned, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer owned.Close()
		w, err := DialFrom(t.Context(), owned, Local)
		if err != nil {
			t.Fatal(path, err)
		}
		w.Close()
	}
}
