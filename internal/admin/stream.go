package admin

import (
	"net/http"
	"strconv"
	"time"

	"handoff/internal/api"
	"handoff/internal/logging"
)

func (s *server) events(rw http.ResponseWriter, r *http.Request) { s.stream(rw, r, s.about.Events) }

func (s *server) logs(rw http.ResponseWriter, r *http.Request) {
	if s.about.Output == nil {
		refuse(rw, api.Errorf(api.CodeNotCaptured, "the output of workers is not captured: it goes where handoff's own output goes (handoff run --capture prefix, json or files)"))
		return
	}
	s.stream(rw, r, s.about.Output)
}

// stream writes the last lines, and with ?follow=1 those that come.
func (s *server) stream(rw http.ResponseWriter, r *http.Request, lines *logging.Events) {
	n := 100
	if text := r.FormValue("last"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			refuse(rw, malformed("last: want a number of lines"))
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
			out.SetWriteDeadline(time.Now().Add(requestTimeout))
			if _, err := rw.Write(line); err != nil || !ok || out.Flush() != nil {
				return
			}
		case <-s.ending:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// workerEvents writes the worker events from the line after ?after= on, if that is a
// number of this master's (?of=), else from the first that is there.
func (s *server) workerEvents(rw http.ResponseWriter, r *http.Request) {
	queue := s.about.WorkerEvents
	if queue == nil {
		refuse(rw, api.Errorf(api.CodeNotEmbedded, "worker events are not recorded: handoff was not started with --embedded, by the SDK"))
		return
	}
	var n int64
	if r.FormValue("of") == s.id {
		n, _ = strconv.ParseInt(r.FormValue("after"), 10, 64)
	}
	rw.Header().Set("Content-Type", "text/plain")
	rw.Header().Set("Handoff-Master", s.id)
	out := http.NewResponseController(rw)
	if out.Flush() != nil {
		return
	}
	for {
		lines, last, more := queue.After(n)
		if len(lines) == 0 {
			select {
			case <-more:
				continue
			case <-s.ending: // all that was there has been written
				return
			case <-r.Context().Done():
				return
			}
		}
		out.SetWriteDeadline(time.Now().Add(requestTimeout))
		for _, line := range lines {
			if _, err := rw.Write(line); err != nil {
				return
			}
		}
		if out.Flush() != nil {
			return
		}
		n = last
		queue.Ack(n)
	}
}
