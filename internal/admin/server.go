package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"handoff/handoff"
	"handoff/internal/api"
	"handoff/internal/logging"
	"handoff/internal/procs"
	"handoff/master"
)

// Serve answers on l until it is closed, and removes its file then, unless another
// master follows.
//
//	GET  /v1/status                  api.Status
//	GET  /v1/events?last=N&follow=1  JSON lines: the last N (100), and those that come
//	POST /v1/reload                  {"generation": N}; what becomes of it is in the status
//	POST /v1/upgrade                 {"upgraded": true}
//	POST /v1/scale?workers=N         or ?by=+1, ?by=-1; {"workers": N}
//	POST /v1/stop?now=1              {"stopping": true}
//	POST /v1/slots/N/restart         {"worker": N}: the one that is replaced
//
// What cannot be done is 409, what is asked wrongly 400, with {"error": "…"}.
func Serve(l net.Listener, c master.Control, about About) (stop func(follows bool)) {
	log := about.Log
	mux := http.NewServeMux()
	ending := make(chan struct{})
	numbered := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) // whose numbers those of Told are
	handle := func(pattern string, f func(ctx context.Context, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), askPatience)
			defer cancel()
			body, err := f(ctx, r)
			switch {
			case errors.Is(err, errAsked):
				answer(rw, http.StatusBadRequest, Problem{err.Error()})
			case errors.Is(err, master.ErrGone), errors.Is(err, context.DeadlineExceeded):
				answer(rw, http.StatusServiceUnavailable, Problem{err.Error()})
			case err != nil:
				answer(rw, http.StatusConflict, Problem{strings.TrimPrefix(err.Error(), master.ErrRefused.Error()+": ")})
			default:
				answer(rw, http.StatusOK, body)
			}
		})
	}
	handle("GET /v1/status", func(ctx context.Context, _ *http.Request) (any, error) {
		s, err := c.Status(ctx)
		if err == nil {
			usage(s.Workers)
		}
		return s, err
	})
	handle("POST /v1/upgrade", func(ctx context.Context, _ *http.Request) (any, error) {
		return map[string]bool{"upgraded": true}, c.Upgrade(ctx)
	})
	handle("POST /v1/reload", func(ctx context.Context, _ *http.Request) (any, error) {
		n, err := c.Reload(ctx)
		return map[string]int{"generation": n}, err
	})
	handle("POST /v1/scale", func(ctx context.Context, r *http.Request) (any, error) {
		text, relative := r.FormValue("workers"), false
		if by := r.FormValue("by"); by != "" {
			text, relative = by, true
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%w: want ?workers=4, ?by=+1 or ?by=-1", errAsked)
		}
		n, err = c.Scale(ctx, n, relative)
		return map[string]int{"workers": n}, err
	})
	handle("POST /v1/stop", func(ctx context.Context, r *http.Request) (any, error) {
		return map[string]bool{"stopping": true}, c.Stop(ctx, r.FormValue("now") == "1")
	})
	handle("POST /v1/slots/{slot}/restart", func(ctx context.Context, r *http.Request) (any, error) {
		slot, err := strconv.Atoi(r.PathValue("slot"))
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no slot", errAsked, r.PathValue("slot"))
		}
		worker, err := c.Restart(ctx, slot)
		return map[string]int{"worker": worker}, err
	})
	handle("POST /v1/balance", func(ctx context.Context, r *http.Request) (any, error) {
		b, ok := map[string]handoff.Balance{"even": handoff.Even, "sticky": handoff.Sticky}[r.FormValue("to")]
		if !ok {
			return nil, fmt.Errorf("%w: want ?to=even or ?to=sticky", errAsked)
		}
		return map[string]string{"balance": b.String()}, c.SetBalance(ctx, b)
	})
	handle("POST /v1/freeze", func(ctx context.Context, _ *http.Request) (any, error) {
		return map[string]bool{"frozen": true}, c.Freeze(ctx)
	})
	handle("POST /v1/workers/{worker}/message", func(ctx context.Context, r *http.Request) (any, error) {
		worker, err := strconv.Atoi(r.PathValue("worker"))
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no worker", errAsked, r.PathValue("worker"))
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, messageMost+1))
		if err != nil || len(body) > messageMost || !json.Valid(body) {
			return nil, fmt.Errorf("%w: want a message as JSON, of at most %d bytes", errAsked, messageMost)
		}
		return map[string]bool{"sent": true}, c.Send(ctx, worker, body)
	})
	handle("POST /v1/workers/{worker}/signal", func(ctx context.Context, r *http.Request) (any, error) {
		worker, err := strconv.Atoi(r.PathValue("worker"))
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no worker", errAsked, r.PathValue("worker"))
		}
		return map[string]bool{"sent": true}, c.Signal(ctx, worker, r.FormValue("name"))
	})
	handle("GET /v1/config", func(context.Context, *http.Request) (any, error) { return about.Config(), nil })
	mux.HandleFunc("GET /v1/events", func(rw http.ResponseWriter, r *http.Request) { stream(rw, r, about.Events, ending) })
	mux.HandleFunc("GET /v1/told", func(rw http.ResponseWriter, r *http.Request) {
		if about.Told == nil {
			answer(rw, http.StatusConflict, Problem{"it was not started by a program of yours: nobody hears what workers say"})
			return
		}
		tell(rw, r, about.Told, numbered, ending)
	})
	handle("POST /v1/told/status", func(ctx context.Context, _ *http.Request) (any, error) {
		return map[string]bool{"told": true}, c.TellStatus(ctx)
	})
	mux.HandleFunc("GET /v1/logs", func(rw http.ResponseWriter, r *http.Request) {
		if about.Output == nil {
			answer(rw, http.StatusConflict, Problem{"what workers write is not captured: it goes where handoff's own output goes (handoff run --capture prefix, json or files)"})
			return
		}
		stream(rw, r, about.Output, ending)
	})
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, http.StatusNotFound, Problem{"there is no " + r.Method + " " + r.URL.Path + "; see /v1/status"})
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	done := make(chan struct{})
	go func() { // ends with l
		defer close(done)
		srv.Serve(l)
	}()
	return func(follows bool) {
		close(ending)
		path := l.Addr().String()
		ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
		<-done
		if follows {
			return // the next one puts its own in the place: who asks meanwhile waits
		}
		os.Remove(strings.TrimSuffix(path, "."+strconv.Itoa(os.Getpid()))) // its name while it was made
	}
}

// stream writes the last lines, and with ?follow=1 those that come.
func stream(rw http.ResponseWriter, r *http.Request, lines *logging.Events, ending <-chan struct{}) {
	n := 100
	if text := r.FormValue("last"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			answer(rw, http.StatusBadRequest, Problem{"last: want a number of lines"})
			return
		}
	}
	rw.Header().Set("Content-Type", "application/jsonl")
	out := http.NewResponseController(rw)
	last, more, stop := lines.Follow(n)
	defer stop()
	for _, line := range last {
		rw.Write(line)
	}
	out.Flush()
	for r.FormValue("follow") == "1" {
		select {
		case line, ok := <-more:
			out.SetWriteDeadline(time.Now().Add(askPatience))
			if _, err := rw.Write(line); err != nil || !ok || out.Flush() != nil {
				return
			}
		case <-ending:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// tell writes what the program above is told, from the line after ?after= on, if that
// is a number of this master's (?of=).
func tell(rw http.ResponseWriter, r *http.Request, told *logging.Told, numbered string, ending <-chan struct{}) {
	var n int64
	if r.FormValue("of") == numbered {
		n, _ = strconv.ParseInt(r.FormValue("after"), 10, 64)
	}
	rw.Header().Set("Content-Type", "text/plain")
	rw.Header().Set("Handoff-Master", numbered)
	out := http.NewResponseController(rw)
	if out.Flush() != nil {
		return
	}
	for {
		lines, last, more := told.After(n)
		if len(lines) == 0 {
			select {
			case <-more:
				continue
			case <-ending: // what was there has been told
				return
			case <-r.Context().Done():
				return
			}
		}
		out.SetWriteDeadline(time.Now().Add(askPatience))
		for _, line := range lines {
			if _, err := rw.Write(line); err != nil {
				return
			}
		}
		if out.Flush() != nil {
			return
		}
		n = last
		told.Took(n)
	}
}

// About is what the control socket tells of besides the master.
type About struct {
	Events *logging.Events // of the log
	Output *logging.Events // what workers write; nil: it is not captured
	Told   *logging.Told   // the events of the log, and what Node workers say; nil: nobody is told
	Config func() any      // what the service runs by, without secrets
	Log    *slog.Logger
}

// askPatience is how long the master may take for an answer, an upgrade included,
// which has a timeout of its own.
const askPatience = 5 * time.Minute

// errAsked is that a request is wrong by itself.
var errAsked = errors.New("cannot understand the request")

// messageMost is the longest message to a worker, in bytes.
const messageMost = 1 << 20

// lastAnswers is how long a client may take for an answer when the master ends.
const lastAnswers = 500 * time.Millisecond

// Problem is the body of an answer that is not 200.
type Problem struct {
	Error string `json:"error"`
}

func answer(rw http.ResponseWriter, code int, body any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	json.NewEncoder(rw).Encode(body)
}

// usage adds what the process groups of the workers use.
func usage(workers []api.WorkerStatus) {
	at := map[int]*api.WorkerStatus{}
	for i := range workers {
		at[workers[i].PID] = &workers[i]
	}
	procs.Walk(func(p procs.Process) {
		if w := at[p.Group]; w != nil {
			w.CPU += p.CPU
			w.RSS += p.RSS
		}
	})
}
