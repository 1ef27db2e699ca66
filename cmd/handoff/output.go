package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"handoff/internal/capture"
	"handoff/internal/logging"
)

// output is what workers write, where that is captured.
type output struct {
	*capture.Capture
	recent *logging.Events // its last lines
}

// captureOf captures as a configuration asks for; nil: nothing.
func captureOf(c capture.Config, log *logging.Log) (*output, error) {
	if c.Mode == capture.None {
		return nil, nil
	}
	o := &output{recent: &logging.Events{}}
	c.Out, c.Err, c.Recent = os.Stdout, os.Stderr, o.recent
	c.Colour = logging.Colour(term.IsTerminal(int(os.Stdout.Fd())))
	var err error
	o.Capture, err = capture.New(c)
	log.Output = o.recent
	return o, err
}

// worker returns where the output of a worker goes.
func (o *output) worker(slot, pid, generation int) (stdout, stderr io.Writer) {
	w := capture.Worker{Slot: slot, PID: pid, Generation: generation}
	return o.Stream(w, capture.Stdout), o.Stream(w, capture.Stderr)
}

// effective is what a master runs by, for who asks. It is safe for concurrent use:
// the mutex is held for a moment.
type effective struct {
	mu  sync.Mutex
	all map[string]any
}

func (e *effective) set(all map[string]any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = all
}

func (e *effective) get() any {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all
}
