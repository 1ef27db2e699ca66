package admin

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"handoff/internal/api"
	"handoff/internal/linux"
	"handoff/internal/metrics"
)

// Public is what a balancer, an orchestrator and Prometheus ask, over TCP: read
// only, and nothing secret in it.
//
//	GET /livez      200: handoff's loop answers. It says nothing of the program
//	GET /readyz     200: every slot is served; else 503, and what is not
//	GET /metrics    Prometheus's text format
type Public struct {
	Addr  string // host:port; loopback, or Token is needed
	Token string // a bearer token that is asked for; "": none
}

// Listen returns the listener of an earlier process, fd, which it owns (-1: none), if that has
// the address; else a new one, when release has let go of the earlier one wherever else it
// is open.
func (p Public) Listen(fd int, release func()) (*net.TCPListener, error) {
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), "admin")
		l, err := net.FileListener(f)
		f.Close()
		want, werr := net.ResolveTCPAddr("tcp", p.Addr)
		if tl, ok := l.(*net.TCPListener); err == nil && werr == nil && ok {
			// 0.0.0.0 listens as [::] if there is IPv6.
			is := tl.Addr().(*net.TCPAddr)
			if is.Port == want.Port && (is.IP.Equal(want.IP) || is.IP.IsUnspecified() && (len(want.IP) == 0 || want.IP.IsUnspecified())) {
				return tl, nil
			}
		}
		if l != nil {
			l.Close()
		}
		release()
	}
	l, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// maxToken is the largest file of a token, in bytes: a header has not room for more.
const maxToken = 8 << 10

// ReadToken reads the token of a file, which nobody else may read.
func ReadToken(path string) (string, error) {
	f, err := linux.OpenInput(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("cannot use the token in %s: others may read it (mode %#o); chmod 600 it", path, info.Mode().Perm())
	}
	b, err := linux.ReadAll(f, maxToken)
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return "", fmt.Errorf("the token in %s is shorter than 16 characters", path)
	}
	return token, nil
}

// CheckAddr looks whether an address may be served without a token.
func CheckAddr(addr string, token bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return fmt.Errorf("invalid address %q: want HOST:PORT, for example 127.0.0.1:9100", addr)
	}
	if ip := net.ParseIP(host); token || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%q is open to others: give --admin-token-file FILE as well, or a loopback address like 127.0.0.1:%s", addr, port)
}

// Meter is what Public asks. Metrics may be called from any goroutine.
type Meter interface {
	Metrics(ctx context.Context) (api.Metrics, error)
}

// Serve answers on l until stop is called, which closes it.
func (p Public) Serve(l net.Listener, m Meter, log *slog.Logger) (stop func()) {
	c := &crowd{}
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(http.ResponseWriter, api.Metrics){"/livez": livez, "/readyz": readyz, "/metrics": writeMetrics} {
		mux.HandleFunc("GET "+pattern, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Content-Type-Options", "nosniff")
			if p.Token == "" && !local(r.Host) {
				http.Error(rw, "the Host is not this machine: ask for localhost or an IP address, or use --admin-token-file", http.StatusMisdirectedRequest)
				return
			}
			if !p.allows(r) {
				rw.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(rw, "a bearer token is required", http.StatusUnauthorized)
				return
			}
			defer c.handling(connOf(r))()
			ctx, cancel := context.WithTimeout(r.Context(), loopTimeout)
			defer cancel()
			metrics, err := m.Metrics(ctx)
			if err != nil {
				http.Error(rw, "handoff does not respond: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
			f(rw, metrics)
		})
	}
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		http.Error(rw, "want GET /livez, /readyz or /metrics", http.StatusNotFound)
	})
	srv := &http.Server{Handler: withoutBody(mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ConnState: c.state,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return serve(srv, l)
}

// connKey is where a request has its connection.
type connKey struct{}

func connOf(r *http.Request) net.Conn {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	return conn
}

// withoutBody refuses requests with a body, which none of these has, and reads nothing of
// it.
func withoutBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			rw.Header().Set("Connection", "close")
			http.Error(rw, "a body is not wanted", http.StatusRequestEntityTooLarge)
			return
		}
		h.ServeHTTP(rw, r)
	})
}

// allows reports whether a request has the token, if one is wanted.
func (p Public) allows(r *http.Request) bool {
	return p.Token == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+p.Token)) == 1
}

// local reports whether a request's Host can be this machine's. Without a token only
// loopback is served; a page in a browser on this machine reaches that, too, by a domain
// of its own that it has lead to 127.0.0.1 (DNS rebinding), and could read the answer. Such
// a name has a dot in it.
func local(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !strings.Contains(name, ".") || net.ParseIP(name) != nil || strings.HasSuffix(name, ".localhost") || name == "localhost.localdomain" {
		return true
	}
	own, err := os.Hostname()
	return err == nil && strings.EqualFold(name, own)
}

// loopTimeout is how long the loop may take before it counts as hung.
const loopTimeout = 5 * time.Second

func livez(rw http.ResponseWriter, _ api.Metrics) { fmt.Fprintln(rw, "ok") }

func readyz(rw http.ResponseWriter, m api.Metrics) {
	s := m.Status
	if s.Serves() {
		fmt.Fprintf(rw, "ok: %d of %d slots ready\n", s.Ready, s.Slots)
		return
	}
	rw.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(rw, "%s: %d of %d slots ready\n", s.State, s.Ready, s.Slots)
	served := map[int]bool{}
	for _, w := range s.Workers {
		served[w.Slot] = served[w.Slot] || w.Steered && w.Phase == api.PhaseServing
	}
	for slot := range s.Slots {
		if !served[slot] {
			fmt.Fprintf(rw, "slot %d is not served\n", slot)
		}
	}
	for _, name := range s.Unserved() {
		fmt.Fprintf(rw, "nobody accepts on %s\n", name)
	}
	if s.LastError != "" {
		fmt.Fprintln(rw, "last error:", s.LastError)
	}
}

func writeMetrics(rw http.ResponseWriter, m api.Metrics) {
	usage(m.Status.Workers)
	fds, _ := os.ReadDir("/proc/self/fd")
	var b bytes.Buffer
	metrics.Write(&b, m, len(fds))
	rw.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	rw.Write(b.Bytes())
}
