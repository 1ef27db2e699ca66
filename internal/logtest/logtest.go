// Package logtest reads the JSON log of a handoff that is under test, and waits for what it
// says.
package logtest

import (
	"bufio"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// Line is one of the log.
type Line struct {
	Event      string `json:"event"`
	Level      string `json:"level"`
	Msg        string `json:"msg"`
	Slot       int    `json:"slot"`
	PID        int    `json:"pid"`
	Generation int    `json:"generation"`
	Addresses  string `json:"addresses"`
	Reason     string `json:"reason"`
	Error      string `json:"error"`
	Stderr     string `json:"stderr"`
	Time       string `json:"time"`
}

// maxLine is how long a line is in a table.
const maxLine = 160

// String is the line as a table has it.
func (l Line) String() string {
	s := "`" + l.Event + "` " + l.Msg
	for _, more := range []string{l.Reason, l.Error} {
		if more != "" && !strings.HasSuffix(s, more) {
			s += ": " + more
		}
	}
	if len(s) > maxLine {
		s = s[:maxLine] + " ..."
	}
	return s
}

// Log is what a handoff has said so far.
type Log struct {
	Mu    sync.Mutex // guards the rest
	Lines []Line
	Other []string // what is not the log's
	Ended bool     // nothing more comes
	more  chan struct{}
}

// New returns an empty log.
func New() *Log { return &Log{more: make(chan struct{}, 1)} }

// Read reads to the end.
func (l *Log) Read(r *bufio.Reader) {
	for {
		text, err := r.ReadString('\n')
		l.Mu.Lock()
		l.add(text)
		l.Ended = err != nil
		l.Mu.Unlock()
		l.wake()
		if err != nil {
			return
		}
	}
}

// Add adds what has come another way.
func (l *Log) Add(text string) {
	l.Mu.Lock()
	l.add(text)
	l.Mu.Unlock()
	l.wake()
}

func (l *Log) add(text string) {
	var line Line
	if json.Unmarshal([]byte(text), &line) == nil && line.Event != "" {
		l.Lines = append(l.Lines, line)
	} else if text != "" {
		l.Other = append(l.Other, strings.TrimSpace(text))
	}
}

func (l *Log) wake() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// Until waits until ok, which is asked at each line, with Mu held. It reports false at the
// end of the log, and after so long. One goroutine may wait.
func (l *Log) Until(most time.Duration, ok func() bool) bool {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	for {
		l.Mu.Lock()
		done, ended := ok(), l.Ended
		l.Mu.Unlock()
		if done || ended {
			return done
		}
		select {
		case <-l.more:
		case <-deadline.C:
			return false
		}
	}
}

// Named returns the lines of an event.
func Named(lines []Line, event string) (found []Line) {
	for _, l := range lines {
		if l.Event == event {
			found = append(found, l)
		}
	}
	return found
}
