package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"handoff/internal/api"
)

func find(t *testing.T, name string) *Client {
	t.Helper()
	c, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFind(t *testing.T) {
	runtimeDir(t)
	if _, err := Find(""); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	start(t, "web")
	if c := find(t, ""); c.Name != "web" {
		t.Errorf("%s", c.Name)
	}
	start(t, "api")
	if _, err := Find(""); !errors.Is(err, ErrWhich) || !strings.Contains(err.Error(), "api, web") {
		t.Errorf("%v", err)
	}
	if _, err := Find("../web"); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	if _, err := find(t, "other").Status(); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("%v", err)
	}
}

// What a client's calls ask of the master.
func TestClient(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	c := find(t, "web")
	number := func(want int) func(n int, err error) error {
		return func(n int, err error) error {
			if n != want {
				err = errors.Join(err, fmt.Errorf("%d, want %d", n, want))
			}
			return err
		}
	}
	for want, call := range map[string]func() error{
		"reload":                  func() error { return number(7)(c.Reload()) },
		"status; upgrade; status": c.Upgrade,
		"scale 4 relative=false":  func() error { return number(9)(c.Scale("4")) },
		"scale 1 relative=true":   func() error { return number(9)(c.Scale("+1")) },
		"scale -1 relative=true":  func() error { return number(9)(c.Scale("-1")) },
		"stop now=false":          func() error { return c.Stop(false) },
		"stop now=true":           func() error { return c.Stop(true) },
		"restart 3":               func() error { return number(12)(c.Restart(3)) },
		"status":                  func() error { st, err := c.Status(); return errors.Join(err, named(st, "web")) },
		"":                        func() error { return c.Get(api.ConfigPath, &api.Config{}) },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if got := s.took(); got != want {
			t.Errorf("called %q, want %q", got, want)
		}
	}
}

func named(s api.Status, name string) error {
	if s.Name != name {
		return fmt.Errorf("the status is of %q", s.Name)
	}
	return nil
}

// A client sees what went wrong by what the error is, never by its text.
func TestClientErrors(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	c := find(t, "web")
	s.answers(api.Errorf(api.CodeOutOfRange, "0 workers: want 1 to 8"), api.Status{})
	_, err := c.Scale("0")
	var e api.Error
	if !errors.As(err, &e) || e.Code != api.CodeOutOfRange || err.Error() != "web: 0 workers: want 1 to 8" {
		t.Errorf("%v", err)
	}
	s.answers(api.Error{Code: api.CodeEnded, Message: "the master has ended"}, api.Status{})
	if _, err := c.Reload(); !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
	// The new binary says that it can take over, and does not: the one before answers.
	s.answers(nil, api.Status{LastError: "upgrade: the new binary did not take over: exited with code 2"})
	if err := c.Upgrade(); !errors.As(err, &e) || e.Code != api.CodeUpgradeFailed || !strings.HasSuffix(err.Error(), "exited with code 2") {
		t.Errorf("%v", err)
	}
	s.answers(api.Error{Code: api.CodeEnded, Message: "the master has ended"}, api.Status{})
	if err := c.Stream("/v1/nonsense", nil); !errors.As(err, &e) || e.Code != api.CodeUnknownRoute {
		t.Errorf("%v", err)
	}
	s.stop(false)
	if _, err := c.Status(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	if err := c.Stream(api.EventsPath, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

// An answer of what is no handoff, or of one that dies while it answers.
func TestClientBadAnswers(t *testing.T) {
	dir := runtimeDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, "web.sock"))
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 1)
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1<<10)
			if n, _ := c.Read(buf); n > 0 {
				fmt.Fprint(c, <-answers)
			}
			c.Close()
		}
	}()
	defer l.Close()
	for _, c := range []struct {
		answer string
		want   error
		text   string
	}{
		{"", ErrEnded, "cannot query web: handoff has ended"},
		{"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\nConnection: close\r\n\r\noops!", nil, "web: 500 Oops"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", nil, "cannot query web: unexpected EOF"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{", nil, "unexpected end of JSON input"},
	} {
		answers <- c.answer
		_, err := find(t, "web").Status()
		if err == nil || err.Error() != c.text || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %s", c.answer, err, c.text)
		}
	}
}

func TestStream(t *testing.T) {
	runtimeDir(t)
	s := start(t, "web")
	fmt.Fprintln(s.Events, `{"n":1}`)
	var got []string
	err := find(t, "web").Stream(api.EventsPath+"?follow=1", func(line []byte) {
		got = append(got, string(line))
		if len(got) == 1 {
			fmt.Fprintln(s.Events, `{"n":2}`)
			return
		}
		go s.stop(true) // ends when the streams have
	})
	if err != nil || strings.Join(got, " ") != `{"n":1} {"n":2}` {
		t.Errorf("%v, %q", err, got)
	}
}

// Between two masters a socket is there, and nobody behind it: a client tries again.
func TestBetweenMasters(t *testing.T) {
	runtimeDir(t)
	start(t, "web")
	c := find(t, "web")
	dial := c.http.Transport.(*http.Transport).DialContext
	refused := 2
	c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if refused--; refused >= 0 {
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
		return dial(ctx, network, addr)
	}
	if _, err := c.Status(); err != nil || refused != -1 {
		t.Errorf("%v, %d", err, refused)
	}
}
