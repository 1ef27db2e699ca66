package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"handoff/internal/api"
	"handoff/internal/linux"
)

// Control is what the API can do to a service. Its methods may be called from any
// goroutine; each returns when it is done, or when ctx ends. Errors that are an
// [api.Error] are answered by their code, others as [api.CodeFailed].
type Control interface {
	serviceControl
	workerControl
}

// serviceControl is what people and scripts use.
type serviceControl interface {
	Status(ctx context.Context) (api.Status, error)
	Reload(ctx context.Context) (generation int, err error)
	Upgrade(ctx context.Context) error
	Scale(ctx context.Context, n int, relative bool) (workers int, err error)
	Stop(ctx context.Context, now bool) error
	Restart(ctx context.Context, slot int) (worker int, err error)
}

// workerControl is what the program uses that has started the service (the Node SDK).
type workerControl interface {
	Send(ctx context.Context, worker int, message json.RawMessage) error
	Signal(ctx context.Context, worker int, name string) error
	Freeze(ctx context.Context) error
	SetBalance(ctx context.Context, balance string) error // even, sticky
	PublishStatus(ctx context.Context) error              // among the worker events
}

// handlers are by the patterns of [api.Routes].
func (s *server) handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /v1/status":                    reply(s.status),
		"GET /v1/config":                    reply(func(context.Context, *http.Request) (any, error) { return s.about.Config(), nil }),
		"GET /v1/events":                    s.events,
		"GET /v1/logs":                      s.logs,
		"GET /v1/worker-events":             s.workerEvents,
		"POST /v1/reload":                   reply(s.reload),
		"POST /v1/upgrade":                  reply(s.upgrade),
		"POST /v1/scale":                    reply(s.scale),
		"POST /v1/stop":                     reply(s.stop),
		"POST /v1/slots/{slot}/restart":     reply(s.restart),
		"POST /v1/balance":                  reply(s.balance),
		"POST /v1/freeze":                   reply(s.freeze),
		"POST /v1/workers/{worker}/message": reply(s.message),
		"POST /v1/workers/{worker}/signal":  reply(s.signal),
		"POST /v1/worker-events/status":     reply(s.publishStatus),
	}
}

// reply is a handler that answers what f returns, as JSON.
func reply(f func(ctx context.Context, r *http.Request) (any, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		body, err := f(ctx, r)
		if err != nil {
			refuse(rw, err)
			return
		}
		answer(rw, http.StatusOK, body)
	}
}

// malformed is the error for a request that is wrong by itself.
func malformed(format string, args ...any) error {
	return api.Errorf(api.CodeBadRequest, "invalid request: "+format, args...)
}

// number is a number in the path of a request.
func number(r *http.Request, name string) (int, error) {
	n, err := strconv.Atoi(r.PathValue(name))
	if err != nil {
		return 0, malformed("%q is not a %s number", r.PathValue(name), name)
	}
	return n, nil
}

func (s *server) status(ctx context.Context, _ *http.Request) (any, error) {
	status, err := s.control.Status(ctx)
	if err == nil {
		usage(status.Workers)
	}
	return status, err
}

func (s *server) reload(ctx context.Context, _ *http.Request) (any, error) {
	n, err := s.control.Reload(ctx)
	return api.Reloading{Generation: n}, err
}

func (s *server) upgrade(ctx context.Context, _ *http.Request) (any, error) {
	return api.Upgraded{Upgraded: true}, s.control.Upgrade(ctx)
}

func (s *server) scale(ctx context.Context, r *http.Request) (any, error) {
	text, relative := r.FormValue("workers"), false
	if by := r.FormValue("by"); by != "" {
		text, relative = by, true
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, malformed("want ?workers=4, ?by=+1 or ?by=-1")
	}
	n, err = s.control.Scale(ctx, n, relative)
	return api.Scaled{Workers: n}, err
}

func (s *server) stop(ctx context.Context, r *http.Request) (any, error) {
	return api.Stopping{Stopping: true}, s.control.Stop(ctx, r.FormValue("now") == "1")
}

func (s *server) restart(ctx context.Context, r *http.Request) (any, error) {
	slot, err := number(r, "slot")
	if err != nil {
		return nil, err
	}
	worker, err := s.control.Restart(ctx, slot)
	return api.Restarting{Worker: worker}, err
}

func (s *server) balance(ctx context.Context, r *http.Request) (any, error) {
	to := r.FormValue("to")
	if to != "even" && to != "sticky" {
		return nil, malformed("want ?to=even or ?to=sticky")
	}
	return api.Balanced{Balance: to}, s.control.SetBalance(ctx, to)
}

func (s *server) freeze(ctx context.Context, _ *http.Request) (any, error) {
	return api.Frozen{Frozen: true}, s.control.Freeze(ctx)
}

// maxMessage is the longest message to a worker, in bytes.
const maxMessage = 1 << 20

func (s *server) message(ctx context.Context, r *http.Request) (any, error) {
	worker, err := number(r, "worker")
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxMessage+1))
	if err != nil || len(body) > maxMessage || !json.Valid(body) {
		return nil, malformed("want a message as JSON, of at most %d bytes", maxMessage)
	}
	return api.Sent{Sent: true}, s.control.Send(ctx, worker, body)
}

func (s *server) signal(ctx context.Context, r *http.Request) (any, error) {
	worker, err := number(r, "worker")
	if err != nil {
		return nil, err
	}
	return api.Sent{Sent: true}, s.control.Signal(ctx, worker, r.FormValue("name"))
}

func (s *server) publishStatus(ctx context.Context, _ *http.Request) (any, error) {
	return api.StatusPublished{Published: true}, s.control.PublishStatus(ctx)
}

// usage adds what the process groups of the workers use.
func usage(workers []api.WorkerStatus) {
	at := map[int]*api.WorkerStatus{}
	for i := range workers {
		at[workers[i].PID] = &workers[i]
	}
	for p := range linux.Processes() {
		if w := at[p.Group]; w != nil {
			w.CPU += p.CPU.Seconds()
			w.RSS += p.RSS
		}
	}
}
