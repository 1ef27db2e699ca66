// Package worker is for Go programs that handoff runs. It is optional: handoff runs
// unmodified programs. With it, a program reports when it is ready, learns when to drain,
// and drains HTTP without losing a request that a keep-alive client sends at the wrong
// moment, which [http.Server.Shutdown] loses (golang/go#75591).
//
// Without handoff the same program runs unchanged: Ready and the other notices have no
// effect (or go to systemd), and SIGTERM or SIGINT starts the drain.
//
//	func main() {
//		w := worker.New()
//		l, err := w.Listen("tcp", ":8000")
//		if err != nil {
//			log.Fatal(err)
//		}
//		w.Ready()
//		if err := w.ServeHTTP(&http.Server{Handler: mux}, l); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// The module's path is handoff, which no module proxy has. A program in another module
// needs a replace directive:
//
//	go mod edit -require handoff@v0.0.0 -replace handoff=/path/to/handoff && go mod tidy
//
// The dialogue with handoff uses systemd's protocols (sd_notify(3), sd_listen_fds(3)):
//
//	handoff → worker   LISTEN_FDS, LISTEN_FDNAMES   sockets of --listen
//	worker → handoff   READY=1                      Ready
//	worker → handoff   STATUS=…, WATCHDOG=1, …      Status, Watchdog, Extend, Replace
//	handoff            steers new connections to the next generation, and waits
//	                   until nothing can be on its way here any more
//	handoff → worker   SIGTERM (--drain-signal)     Draining is closed
//	worker             finishes, and exits
package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/listenfds"
	"handoff/internal/sdnotify"
)

// Worker is this process as a worker of handoff. New creates it.
type Worker struct {
	slot, generation int
	id               uint32
	managed          bool
	notify           string        // address for notices; "": none
	watchdog         time.Duration // 0: no watchdog
	linger           time.Duration
	draining         chan struct{} // closed once, by the drain
	maxRequests      int64         // after which the worker is replaced; 0: unlimited
	requests         atomic.Int64

	mu     sync.Mutex   // guards passed
	passed []cmsg.Named // sockets that were not requested yet
	err    error        // why there are none
}

// lingerAlone is how long idle keep-alive connections may still send a request in a drain
// without handoff.
const lingerAlone = 6 * time.Second

// New reads the environment that handoff or systemd has set, and handles the drain
// signals: SIGTERM, SIGINT and the --drain-signal. Under handoff a signal that handoff
// did not send (kill PID) is a request for a replacement, see [Worker.Replace]: new
// connections still come to this process. During the drain each signal has its default
// effect, which ends the process; under handoff only after the first second. Call it
// once, early: until then a signal ends the process. Its goroutine ends with the drain.
func New() *Worker {
	w := &Worker{
		slot: number("WORKER_ID"), generation: number("HANDOFF_GENERATION"),
		notify: os.Getenv("NOTIFY_SOCKET"), linger: lingerAlone, draining: make(chan struct{}),
	}
	w.id = uint32(number("HANDOFF_WORKER"))
	w.maxRequests = int64(number("HANDOFF_MAX_REQUESTS"))
	_, w.managed = os.LookupEnv("HANDOFF_GENERATION")
	if d, err := time.ParseDuration(os.Getenv("HANDOFF_KEEPALIVE_LINGER")); err == nil && d >= 0 {
		w.linger = d
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		w.watchdog = time.Duration(number("WATCHDOG_USEC")) * time.Microsecond
	}
	w.passed, w.err = listenfds.Passed(os.Getenv)
	signals := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(os.Getenv("HANDOFF_DRAIN_SIGNAL")), "SIG")); s != 0 {
		signals = append(signals, s)
	}
	came := make(chan os.Signal, 1)
	signal.Notify(came, signals...)
	go func() {
		for range came {
			if w.ordered() {
				break
			}
			w.Replace() // another process's signal: new connections still come
		}
		if !w.managed {
			signal.Stop(came)
		}
		close(w.draining)
		w.send("STOPPING=1")
		if w.managed { // the order itself may still follow another process's signal
			for once := time.After(sameOrder); ; {
				select {
				case <-came:
					continue
				case <-once:
				}
				break
			}
			signal.Stop(came)
		}
	}()
	return w
}

// sameOrder is how long after an order to drain a signal counts as the same order:
// kill(1) for a whole control group signals the worker and handoff, which then sends its
// order.
const sameOrder = time.Second

// ordered asks handoff whether the signal is its order to drain. Without an answer the
// signal counts as the order.
func (w *Worker) ordered() bool {
	if !w.managed || w.notify == "" {
		return true
	}
	return sdnotify.AskDraining(w.notify, answerTimeout)
}

// answerTimeout limits how long handoff may take to answer. Between two masters there is
// briefly no answer.
const answerTimeout = 3 * time.Second

// number returns a variable's value as an integer; 0 if it is not one.
func number(name string) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Managed reports whether handoff runs this process.
func (w *Worker) Managed() bool { return w.managed }

// Slot is the worker's slot, from 0. Without handoff it is 0.
func (w *Worker) Slot() int { return w.slot }

// Generation counts the reloads of handoff, from 1. Without handoff it is 0.
func (w *Worker) Generation() int { return w.generation }

// ID counts the workers of the service, from 1: no two have the same. Without handoff it is
// 0. The connection ids of a QUIC server name it, see package handoff/sdk/quicgo.
func (w *Worker) ID() uint32 { return w.id }

// Linger is how long an idle connection may still send a request in a drain
// (--keepalive-linger).
func (w *Worker) Linger() time.Duration { return w.linger }

// Draining is closed when the worker must finish its requests and exit. It gets no new
// connections from then on. Close long-lived connections.
func (w *Worker) Draining() <-chan struct{} { return w.draining }

// Context returns a context that is cancelled when the worker drains or parent is
// cancelled. Its resources are freed then, or by cancel.
func (w *Worker) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	ctx, stop := context.WithCancelCause(parent)
	go func() { // ends with the context
		select {
		case <-w.draining:
			stop(ErrDraining)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { stop(context.Canceled) }
}

// ErrDraining is the cause of a context that was cancelled by the drain.
var ErrDraining = errors.New("the worker drains")

// Listen returns a listener on a TCP or unix address: the socket that handoff or systemd
// has passed for it, if there is one, else a new one from net.Listen, which handoff also
// holds under the bind contract. The caller closes it; ServeHTTP does.
func (w *Worker) Listen(network, address string) (net.Listener, error) {
	if w.err != nil {
		return nil, w.err
	}
	p, ok := w.take(func(p cmsg.Named) bool { return matches(p.FD, network, address) })
	if !ok {
		return net.Listen(network, address)
	}
	return listener(p)
}

// Named returns a listener on the socket that was passed with that name (--listen
// NAME=ADDR; FileDescriptorName= of systemd). The caller closes it.
func (w *Worker) Named(name string) (net.Listener, error) {
	if w.err != nil {
		return nil, w.err
	}
	p, ok := w.take(func(p cmsg.Named) bool { return p.Name == name })
	if !ok {
		return nil, fmt.Errorf("no socket %q was passed: run it with --listen %s=ADDR", name, name)
	}
	return listener(p)
}

func (w *Worker) take(ok func(cmsg.Named) bool) (cmsg.Named, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, p := range w.passed {
		if ok(p) {
			w.passed = append(w.passed[:i:i], w.passed[i+1:]...)
			return p, true
		}
	}
	return cmsg.Named{}, false
}

func listener(p cmsg.Named) (net.Listener, error) {
	f := os.NewFile(uintptr(p.FD), p.Name)
	defer f.Close() // FileListener has a duplicate
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket that was passed: %w", err)
	}
	return l, nil
}

// matches reports whether a passed socket has an address, as net.Listen understands it.
func matches(fd int, network, address string) bool {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	if network == "unix" {
		u, ok := sa.(*unix.SockaddrUnix)
		abs, err := filepath.Abs(address)
		return ok && err == nil && (u.Name == address || u.Name == abs)
	}
	want, err := net.ResolveTCPAddr(network, address)
	if err != nil {
		return false
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ip := net.IP(sa.Addr[:])
		return sa.Port == want.Port && network != "tcp6" && (ip.Equal(want.IP) || ip.IsUnspecified() && unspecified(want.IP))
	case *unix.SockaddrInet6:
		ip := net.IP(sa.Addr[:])
		only, _ := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		return sa.Port == want.Port && (network != "tcp4" || only == 0 && ip.IsUnspecified()) &&
			(ip.Equal(want.IP) || ip.IsUnspecified() && unspecified(want.IP))
	}
	return false
}

func unspecified(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }

// Ready reports that the worker can serve: with --ready-when ready (or listening), it
// gets connections from now on. An error means that the notice could not be sent; without
// handoff or systemd there is none.
func (w *Worker) Ready() error { return w.send("READY=1") }

// Status sets a status line for people (`handoff status`, `systemctl status`), of up to
// 200 bytes.
func (w *Worker) Status(format string, args ...any) error {
	return w.send("STATUS=" + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

// Extend requests more time, from now, to become ready or to drain.
func (w *Worker) Extend(by time.Duration) error {
	return w.send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(by.Microseconds(), 10))
}

// Replace requests a replacement; when that serves, this worker is drained. Use it if the
// program leaks, or has lost something that it needs. Without handoff it does nothing.
func (w *Worker) Replace() error {
	if !w.managed {
		return nil
	}
	return w.send("STOPPING=1")
}

// Served counts n requests towards --max-requests, after which the worker is replaced.
// [Worker.ServeHTTP] calls it.
func (w *Worker) Served(n int) {
	if w.maxRequests == 0 || n <= 0 {
		return
	}
	if all := w.requests.Add(int64(n)); all >= w.maxRequests && all-int64(n) < w.maxRequests {
		w.send("X_REQUESTS=" + strconv.FormatInt(all, 10))
	}
}

// Watchdog sends the keep-alive notices of the watchdog (--watchdog; WatchdogSec= of
// systemd) while alive returns true, until ctx ends. Without a watchdog it returns
// immediately. A nil alive always returns true: then only a process whose goroutines do
// not run is replaced.
func (w *Worker) Watchdog(ctx context.Context, alive func() bool) {
	if w.watchdog == 0 {
		return
	}
	tick := time.NewTicker(w.watchdog / 3)
	defer tick.Stop()
	for {
		if alive == nil || alive() {
			w.send("WATCHDOG=1")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// send sends a notice.
func (w *Worker) send(what string) error {
	if w.notify == "" {
		return nil
	}
	if err := sdnotify.Send(w.notify, what); err != nil {
		return fmt.Errorf("cannot notify the supervisor: %w", err)
	}
	return nil
}
