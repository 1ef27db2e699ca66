package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"handoff/internal/api"
	"handoff/internal/logging"
)

// About is what the control socket shows besides the master.
type About struct {
	Events       *logging.Events       // of the log
	Output       *logging.Events       // what workers write; nil: it is not captured
	WorkerEvents *logging.WorkerEvents // the events of the log, and messages of Node workers; nil: not recorded
	Config       func() any            // what the service runs by, without secrets
	Log          *slog.Logger
}

// server answers the requests of one control socket.
type server struct {
	control Control
	about   About
	id      string        // of this master, which the numbers of worker events belong to
	ending  chan struct{} // closed by stop: streams end
}

// Serve answers on l until stop is called, which closes it, and removes its file
// unless another master follows. [api.Routes] lists the requests.
func Serve(l net.Listener, c Control, about About) (stop func(follows bool)) {
	s := &server{control: c, about: about, ending: make(chan struct{}),
		id: strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	srv := &http.Server{Handler: s.mux(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ConnContext: withSender, ErrorLog: slog.NewLogLogger(about.Log.Handler(), slog.LevelDebug)}
	shut := serve(srv, l)
	return func(follows bool) {
		close(s.ending)
		shut()
		if !follows { // else the next master renames its own onto it: clients wait meanwhile
			os.Remove(strings.TrimSuffix(l.Addr().String(), "."+strconv.Itoa(os.Getpid()))) // its name while it was made
		}
	}
}

// mux has every route of the API, by its name of today and by its former one.
func (s *server) mux() *http.ServeMux {
	mux := http.NewServeMux()
	handlers := s.handlers()
	for _, r := range api.Routes() {
		h := handlers[r.Pattern]
		if r.Order {
			h = s.attributed(h)
		}
		mux.HandleFunc(r.Pattern, h)
		if r.Former != "" {
			mux.HandleFunc(r.Former, h)
		}
	}
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		refuse(rw, api.Errorf(api.CodeUnknownRoute, "unknown request %s %s; see /v1/status", r.Method, r.URL.Path))
	})
	return mux
}

// serve answers on l until shut is called, which lets answers that are under way end.
func serve(srv *http.Server, l net.Listener) (shut func()) {
	done := make(chan struct{})
	go func() { // ends with l
		defer close(done)
		srv.Serve(l)
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
		<-done
	}
}

// requestTimeout is how long the master may take for an answer, an upgrade included,
// which has a timeout of its own.
const requestTimeout = 5 * time.Minute

// Patience is how long a client waits for an answer, unless it says otherwise.
const Patience = requestTimeout

// lastAnswers is how long a client may take for an answer when the master ends.
const lastAnswers = 500 * time.Millisecond

// refuse answers with an error.
func refuse(rw http.ResponseWriter, err error) {
	var e api.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded):
		e = api.Errorf(api.CodeTimeout, "%v", err)
	default:
		e = api.Errorf(api.CodeFailed, "%v", err)
	}
	answer(rw, e.Code.Status(), e)
}

func answer(rw http.ResponseWriter, status int, body any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	json.NewEncoder(rw).Encode(body)
}
