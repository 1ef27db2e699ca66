package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"handoff/internal/api"
	"handoff/internal/logging"
)

// script is a Control that notes what is asked, and answers what it was given. It is
// safe for concurrent use.
type script struct {
	mu     sync.Mutex // guards all below
	calls  []string
	err    error // what every call answers
	status api.Status
	count  api.Counters
}

func (s *script) call(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	return s.err
}

// took returns what was asked since the last time.
func (s *script) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, "; ")
	s.calls = nil
	return calls
}

// answers changes what every call answers.
func (s *script) answers(err error, status api.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.status = err, status
}

func (s *script) Status(context.Context) (api.Status, error) {
	err := s.call("status")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, err
}

func (s *script) Metrics(context.Context) (api.Metrics, error) {
	err := s.call("metrics")
	s.mu.Lock()
	defer s.mu.Unlock()
	return api.Metrics{Status: s.status, Counters: s.count}, err
}

func (s *script) Reload(context.Context) (int, error) { return 7, s.call("reload") }
func (s *script) Upgrade(context.Context) error       { return s.call("upgrade") }
func (s *script) Scale(_ context.Context, n int, relative bool) (int, error) {
	return 9, s.call("scale %d relative=%v", n, relative)
}
func (s *script) Stop(_ context.Context, now bool) error { return s.call("stop now=%v", now) }
func (s *script) Restart(_ context.Context, slot int) (int, error) {
	return 12, s.call("restart %d", slot)
}
func (s *script) Send(_ context.Context, worker int, m json.RawMessage) error {
	return s.call("send %d %.20s", worker, m)
}
func (s *script) Signal(_ context.Context, worker int, name string) error {
	return s.call("signal %d %s", worker, name)
}
func (s *script) Freeze(context.Context) error                 { return s.call("freeze") }
func (s *script) SetBalance(_ context.Context, b string) error { return s.call("balance %s", b) }
func (s *script) PublishStatus(context.Context) error          { return s.call("publish status") }

// service is a control socket with a script behind it.
type service struct {
	*script
	About
	path string // of the socket
	stop func(follows bool)
}

// runtimeDir has control sockets in a folder of the test's own.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir() // short enough for a socket's name; mode 0755 is fine
	t.Setenv("HANDOFF_RUNTIME_DIR", dir)
	return dir
}

// start serves the control socket of a name, in the folder of [runtimeDir].
func start(t *testing.T, name string, change ...func(*About)) *service {
	t.Helper()
	l, err := Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, name, change...)
}

func serveOn(t *testing.T, l net.Listener, name string, change ...func(*About)) *service {
	t.Helper()
	s := &service{script: &script{status: api.Status{Schema: 1, Name: name, State: api.StateServing, Generation: 1, Slots: 1, Ready: 1}}, path: os.Getenv(DirVariable) + "/" + name + ".sock"}
	s.About = About{Events: &logging.Events{}, Output: &logging.Events{}, WorkerEvents: &logging.WorkerEvents{},
		Config: func() any { return map[string]any{"schema": 1, "file": "/srv/web/handoff.toml"} }, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&s.About)
	}
	var once sync.Once
	stop := Serve(l, s.script, s.About)
	s.stop = func(follows bool) { once.Do(func() { stop(follows) }) }
	t.Cleanup(func() { s.stop(false) })
	return s
}
