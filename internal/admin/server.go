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

	"handoff/master"
)

// Serve answers on l until it is closed, and removes its file then.
func Serve(l net.Listener, c master.Control, log *slog.Logger) (stop func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(rw http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		s, err := c.Status(ctx)
		if err != nil {
			answer(rw, http.StatusServiceUnavailable, Problem{err.Error()})
			return
		}
		usage(s.Workers)
		answer(rw, http.StatusOK, s)
	})
	mux.HandleFunc("POST /v1/upgrade", func(rw http.ResponseWriter, r *http.Request) {
		switch err := c.Upgrade(r.Context()); {
		case errors.Is(err, master.ErrGone):
			answer(rw, http.StatusOK, map[string]bool{"upgraded": true})
		case err != nil:
			answer(rw, http.StatusConflict, Problem{err.Error()})
		default:
			answer(rw, http.StatusOK, map[string]bool{"upgraded": true})
		}
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
	return func() {
		path := l.Addr().String()
		ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
		<-done
		os.Remove(strings.TrimSuffix(path, "."+strconv.Itoa(os.Getpid()))) // its name while it was made
	}
}

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
func usage(workers []master.WorkerStatus) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	page := int64(os.Getpagesize())
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// After the name, which may have anything in it: 3 state, 4 ppid, 5
		// pgrp … 14 utime, 15 stime … 24 rss (proc(5)).
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 22 {
			continue
		}
		group, _ := strconv.Atoi(f[2])
		for i := range workers {
			if workers[i].PID != group {
				continue
			}
			utime, _ := strconv.ParseFloat(f[11], 64)
			stime, _ := strconv.ParseFloat(f[12], 64)
			rss, _ := strconv.ParseInt(f[21], 10, 64)
			workers[i].CPU += (utime + stime) / 100 // USER_HZ is 100 on every Linux that Go runs on
			workers[i].RSS += rss * page
		}
	}
}
