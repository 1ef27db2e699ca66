package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"handoff/internal/capture"
	"handoff/internal/logging"
	"handoff/master/process"
)

// output is what workers write.
type output struct {
	*capture.Capture
	stdout process.Stdout                                // what they have
	lost   atomic.Pointer[func(string, error, int) bool] // called when lines are lost, from the master's start on
}

// outputOf writes output as configured.
func outputOf(c capture.Config, log *logging.Log) (*output, error) {
	tty := term.IsTerminal(int(os.Stdout.Fd()))
	o := &output{stdout: process.Piped}
	c.Out, c.Err, c.Colour = os.Stdout, os.Stderr, logging.Colour(tty)
	c.Lost = func(l capture.Loss) bool {
		hear := o.lost.Load()
		return hear != nil && (*hear)(l.To, l.Err, l.Lines)
	}
	if c.Mode == capture.None {
		o.stdout = own(tty)
	} else {
		log.Output = &logging.Events{}
		c.Recent = log.Output
	}
	var err error
	o.Capture, err = capture.New(c)
	return o, err
}

// own is what workers have as their stdout where that is handoff's. What can go away would
// take them with it: a terminal, which is none any more once it has closed, a pipe, a
// socket. (journald keeps its sockets, and wants to know who writes.)
func own(tty bool) process.Stdout {
	var st unix.Stat_t
	if tty {
		return process.Terminal
	}
	if err := unix.Fstat(1, &st); err != nil {
		return process.Own
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return process.Own
	case unix.S_IFCHR:
		if null := unix.Mkdev(1, 3); st.Rdev == null {
			return process.Own
		}
	case unix.S_IFSOCK:
		if os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino) {
			return process.Own
		}
	}
	return process.Piped
}

// worker returns where the output of a worker goes.
func (o *output) worker(slot, pid, generation int) (stdout, stderr io.Writer) {
	w := capture.Worker{Slot: slot, PID: pid, Generation: generation}
	return o.Stream(w, capture.Stdout), o.Stream(w, capture.Stderr)
}

// slowReader is how long to wait at the end for a slow reader of the workers' output.
const slowReader = 2 * time.Second

// losses sets the function that is called when lines are lost.
func (o *output) losses(hear func(to string, err error, lines int) (taken bool)) { o.lost.Store(&hear) }

// effective is the effective configuration. It is safe for concurrent use:
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
