package admin

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
)

// public serves on a port of loopback, and returns how to ask.
func public(t *testing.T, p Public, s *script) (get func(path, token string) (int, string)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Serve(l, s, slog.New(slog.DiscardHandler)))
	return func(path, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
}

// A page that has a name of its own lead to loopback gets nothing, and none of another
// origin may read an answer.
func TestRebinding(t *testing.T) {
	s := &script{}
	own, _ := os.Hostname()
	for _, c := range []struct {
		host, token string
		code        int
	}{
		{"evil.example", "", 421}, {"evil.example:9100", "", 421}, {"127.0.0.1.evil.example", "", 421}, {"localhost.evil.example", "", 421}, {"evil.localhost.", "", 200},
		{"localhost:9100", "", 200}, {"LOCALHOST", "", 200}, {"web.localhost", "", 200}, {"127.0.0.1:9100", "", 200}, {"[::1]:9100", "", 200}, {"[::1]", "", 200}, {own, "", 200},
		{"web.example", "0123456789abcdef", 200},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stop := Public{Token: c.token}.Serve(l, s, slog.New(slog.DiscardHandler))
		req, _ := http.NewRequest("GET", "http://"+l.Addr().String()+"/livez", nil)
		req.Host = c.host
		req.Header.Set("Origin", "http://"+c.host)
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.code || resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, %v", c.host, resp.StatusCode, resp.Header)
		}
		stop()
	}
}

func TestPublic(t *testing.T) {
	s := &script{}
	get := public(t, Public{}, s)
	serving := api.Status{Name: "web", State: api.StateServing, Generation: 1, Slots: 2, Ready: 2}
	degraded := api.Status{Name: "web", State: api.StateDegraded, Generation: 1, Slots: 3, Ready: 1, LastError: "slot 1: exit code 1",
		Workers: []api.WorkerStatus{{Slot: 0, Phase: api.PhaseServing, Steered: true}, {Slot: 1, Phase: api.PhaseStarting}, {Slot: 2, Phase: api.PhaseServing}}}
	stopping := serving
	stopping.State = api.StateStopping
	unserved := api.Status{Name: "web", State: api.StateDegraded, Generation: 1, Slots: 1, Ready: 1, Addresses: []api.AddressStatus{{Address: "127.0.0.1:80", Unserved: true}},
		Workers: []api.WorkerStatus{{Slot: 0, Phase: api.PhaseServing, Steered: true}}}
	for _, c := range []struct {
		status api.Status
		err    error
		path   string
		code   int
		answer string
	}{
		{serving, nil, "/livez", 200, "ok\n"},
		{degraded, nil, "/livez", 200, "ok\n"},
		{serving, errors.New("hung"), "/livez", 503, "handoff does not respond: hung\n"},
		{serving, nil, "/readyz", 200, "ok: 2 of 2 slots ready\n"},
		{degraded, nil, "/readyz", 503, "degraded: 1 of 3 slots ready\nslot 1 is not served\nslot 2 is not served\nlast error: slot 1: exit code 1\n"},
		{unserved, nil, "/readyz", 503, "degraded: 1 of 1 slots ready\nnobody accepts on 127.0.0.1:80\n"},
		{stopping, nil, "/readyz", 503, "stopping: 2 of 2 slots ready\nslot 0 is not served\nslot 1 is not served\n"},
		{serving, errors.New("hung"), "/readyz", 503, "handoff does not respond: hung\n"},
		{serving, nil, "/v1/status", 404, "want GET /livez, /readyz or /metrics\n"},
	} {
		s.answers(c.err, c.status)
		if code, answer := get(c.path, ""); code != c.code || answer != c.answer {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, answer, c.code, c.answer)
		}
	}
}

// /metrics has what workers use, which the master does not know.
func TestPublicMetrics(t *testing.T) {
	s := &script{}
	get := public(t, Public{}, s)
	s.answers(nil, api.Status{Name: "web", Generation: 1, Slots: 1, Ready: 1, Workers: []api.WorkerStatus{{Steered: true, Phase: api.PhaseServing, PID: unix.Getpgrp()}}})
	code, text := get("/metrics", "")
	for _, want := range []string{`handoff_up{service="web"} 1`, `handoff_slot_resident_memory_bytes{slot="0"} `, "handoff_open_fds "} {
		if code != 200 || !strings.Contains(text, want) || strings.Contains(text, want+"0\n") {
			t.Errorf("%d, no %s in\n%s", code, want, text)
		}
	}
}

func TestPublicToken(t *testing.T) {
	s := &script{}
	get := public(t, Public{Token: "0123456789abcdef"}, s)
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		for token, want := range map[string]bool{"0123456789abcdef": true, "0123456789abcdeF": false, "0123456789abcde": false, "": false} {
			s.took()
			code, _ := get(path, token)
			if asked := s.took() != ""; (code != 401) != want || asked != want {
				t.Errorf("%s with token %q: %d, the master is asked: %v", path, token, code, asked)
			}
		}
	}
}

func TestReadToken(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := ReadToken(write("good", "0123456789abcdef\n", 0o600)); err != nil || got != "0123456789abcdef" {
		t.Errorf("%q, %v", got, err)
	}
	for _, path := range []string{write("short", "0123456789abcde\n", 0o600), write("open", "0123456789abcdef", 0o644), filepath.Join(dir, "none"), dir} {
		if got, err := ReadToken(path); err == nil {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestCheckAddr(t *testing.T) {
	for _, c := range []struct {
		addr      string
		token, ok bool
	}{
		{"127.0.0.1:9100", false, true}, {"localhost:9100", false, true}, {"[::1]:9100", false, true},
		{"0.0.0.0:9100", false, false}, {"0.0.0.0:9100", true, true}, {":9100", false, false}, {"10.0.0.1:9100", false, false},
		{"9100", true, false}, {"127.0.0.1:", true, false}, {"web:9100", false, false},
	} {
		if err := CheckAddr(c.addr, c.token); (err == nil) != c.ok {
			t.Errorf("%s, token %v: %v", c.addr, c.token, err)
		}
	}
}

// The listener of the master before is used, if its address is still the one that is wanted.
func TestListenAgain(t *testing.T) {
	first, err := Public{Addr: "127.0.0.1:0"}.Listen(-1, func() { t.Error("released") })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { first.Close() }()
	addr := first.Addr().String()
	copied := func() int {
		f, err := first.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	again, err := Public{Addr: addr}.Listen(copied(), func() { t.Error("released, though it is used") })
	if err != nil || again.Addr().String() != addr {
		t.Fatal(again, err)
	}
	again.Close()
	// Another address: the one before is let go of first, here by its only owner.
	_, port, _ := net.SplitHostPort(addr)
	released := false
	other, err := Public{Addr: "127.0.0.2:" + port}.Listen(copied(), func() { released = true; first.Close() })
	if err != nil || !released || other.Addr().String() != "127.0.0.2:"+port {
		t.Fatal(other, err, released)
	}
	other.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, _ := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	fresh, err := Public{Addr: "127.0.0.1:0"}.Listen(fd, func() {})
	if err != nil {
		t.Fatal("what is no listener: ", err)
	}
	fresh.Close()
}
