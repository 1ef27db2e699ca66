package admin

import (
	"context"
	"net"
	"net/http"
	"os"

	"handoff/internal/api"
	"handoff/internal/events"
	"handoff/internal/linux"
)

// senderKey is that of a connection's peer in the context of its requests.
type senderKey struct{}

// withSender adds the pid of who connects, which the kernel vouches for.
func withSender(ctx context.Context, c net.Conn) context.Context {
	if u, ok := c.(*net.UnixConn); ok {
		if cred, err := peer(u); err == nil {
			return context.WithValue(ctx, senderKey{}, int(cred.Pid))
		}
	}
	return ctx
}

// attributed says in the log who gives an order, if that is a process of a worker: it may
// be of handoff's own user, and then do what that user may.
func (s *server) attributed(next http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if pid, _ := r.Context().Value(senderKey{}).(int); pid > 0 && pid != os.Getpid() {
			s.attribute(r, pid)
		}
		next(rw, r)
	}
}

func (s *server) attribute(r *http.Request, pid int) {
	keeper := os.Getppid()
	if !linux.Descends(pid, os.Getpid()) && !linux.Descends(pid, keeper) {
		return
	}
	status, err := s.control.Status(r.Context())
	if err != nil {
		return
	}
	for _, w := range status.Workers {
		if linux.Descends(pid, w.PID) || linux.LeftBehind(pid, w.PID, keeper) {
			s.order(r.Method+" "+r.URL.RequestURI(), pid, w)
			return
		}
	}
}

func (s *server) order(request string, pid int, w api.WorkerStatus) {
	s.about.Log.Info("A process of a worker gives an order on the control socket: "+request, "event", events.ControlOrder,
		"slot", w.Slot, "pid", w.PID, "generation", w.Generation, "worker", w.Worker, "request", request, "sender", pid)
}
