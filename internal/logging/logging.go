// Package logging writes one line per event: text for people, JSON with stable names for
// machines.
package logging

import (
	"bytes"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"handoff/internal/events"
	"handoff/internal/linux"
	"handoff/internal/printable"
)

// Log is the log of events, to a file that can be reopened for logrotate. It is safe for
// concurrent use.
type Log struct {
	*slog.Logger
	Events       *Events
	WorkerEvents *WorkerEvents // the events, and messages of Node workers; nil: not recorded
	Output       *Events       // the captured output of workers; nil: not captured
	level        *slog.LevelVar
	path         string
	lines        chan []byte // never closed
	flush        chan chan struct{}
	lost         atomic.Int64 // lines dropped because lines was full
	waiting      atomic.Int64 // lines not written yet

	mu      sync.Mutex // guards file against a Reopen during a write, and failing
	file    *os.File
	failing failing
}

// maxLines is how many lines wait for a blocked reader (a full pipe, a stopped terminal).
// More lines are dropped and counted: the log must not block the service.
const maxLines = 4096

// New opens a log. format is "text", "json" or "auto": text on a terminal, else
// JSON. With path "" it goes to stderr.
func New(format string, level slog.Level, path, name string) (*Log, error) {
	l := unopened(level, path)
	if err := l.Reopen(); err != nil {
		return nil, err
	}
	l.begin(format, name)
	return l, nil
}

// Instead is New for a path that cannot be opened: it goes to stderr until Reopen can.
func Instead(format string, level slog.Level, path, name string) *Log {
	l := unopened(level, path)
	l.begin(format, name)
	return l
}

func unopened(level slog.Level, path string) *Log {
	least := &slog.LevelVar{}
	least.Set(level)
	return &Log{Events: &Events{}, level: least, path: path, file: os.Stderr, lines: make(chan []byte, maxLines), flush: make(chan chan struct{})}
}

// begin makes the handlers.
func (l *Log) begin(format, name string) {
	path, least := l.path, l.level
	tty := path == "" && term.IsTerminal(int(os.Stderr.Fd()))
	if format == "auto" {
		format = "json"
		if tty {
			format = "text"
		}
	}
	events := slog.NewJSONHandler(l.Events, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: forMachines})
	to := func(w io.Writer) *slog.Logger {
		if format != "json" {
			return slog.New(both{newPeople(tint.NewTextHandler(w, &tint.Options{
				Level: least, TimeFormat: time.DateTime + ".000", NoColor: !Colour(tty), ReplaceAttr: forPeople,
			}), tty, least), events})
		}
		log := slog.New(both{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: least, ReplaceAttr: forMachines}), events})
		if name != "" {
			log = log.With("name", name)
		}
		return log
	}
	l.Logger = to(l)
	go l.write(to(direct{l})) // for as long as the process
}

// SetLevel changes the minimum level that is logged.
func (l *Log) SetLevel(level slog.Level) { l.level.Set(level) }

// Write is for the handlers. It never blocks: a line is written immediately if there is
// room, so that a killed master has logged what it did; else it waits for the reader.
func (l *Log) Write(p []byte) (int, error) {
	if l.now(p) {
		return len(p), nil
	}
	l.waiting.Add(1)
	select {
	case l.lines <- bytes.Clone(p):
	default:
		l.waiting.Add(-1)
		l.lost.Add(1)
	}
	return len(p), nil
}

// now writes a line if none is waiting and it cannot block: a pipe that is writable
// according to poll(2) has room for PIPE_BUF bytes (pipe(7)).
func (l *Log) now(p []byte) bool {
	const pipeBuf = 4096
	if len(p) > pipeBuf || !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	ready := []unix.PollFd{{Fd: int32(l.file.Fd()), Events: unix.POLLOUT}}
	if n, err := unix.Poll(ready, 0); l.waiting.Load() > 0 || n != 1 || err != nil || ready[0].Revents != unix.POLLOUT {
		return false
	}
	l.put(p, time.Now())
	if l.failing.due(time.Now()) {
		select {
		case l.lines <- nil: // out says what was lost
		default: // and so it does with the next line
		}
	}
	return true
}

// write writes the waiting lines. It reports dropped lines by direct, since the queue may
// be full.
func (l *Log) write(direct *slog.Logger) {
	for {
		select {
		case line := <-l.lines:
			l.out(line, direct)
		case done := <-l.flush:
			for len(l.lines) > 0 {
				l.out(<-l.lines, direct)
			}
			close(done)
		}
	}
}

func (l *Log) out(line []byte, direct *slog.Logger) {
	l.mu.Lock()
	if line != nil { // else it has been written
		l.put(line, time.Now())
		l.waiting.Add(-1)
	}
	unwritten, err := l.failing.over(time.Now())
	l.mu.Unlock()
	if n := l.lost.Swap(0); n > 0 {
		direct.Warn("Log lines dropped: the reader of the log is too slow", "event", events.LogLost, "lines", n)
	}
	if unwritten > 0 {
		direct.Warn("Log lines lost: the log could not be written ("+err.Error()+")", "event", events.LogLost, "lines", unwritten, "error", err.Error())
	}
}

// direct writes to the file immediately; it may block.
type direct struct{ *Log }

func (d direct) Write(line []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(line, time.Now())
	return len(line), nil
}

// Flush writes the waiting lines, for at most a second.
func (l *Log) Flush() {
	late := time.After(time.Second)
	done := make(chan struct{})
	select {
	case l.flush <- done:
	case <-late:
		return
	}
	select {
	case <-done:
	case <-late:
	}
}

// Reopen reopens the log file, after it was renamed. Without a file it does nothing. On
// error the old one stays in use.
func (l *Log) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := linux.OpenOutput(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.file
	l.file, l.failing.broken = f, false
	l.mu.Unlock()
	if old != os.Stderr {
		old.Close()
	}
	return nil
}

// Colour follows NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE and TERM=dumb.
func Colour(tty bool) bool {
	forced := func(name string) bool { v := os.Getenv(name); return v != "" && v != "0" }
	switch {
	case os.Getenv("NO_COLOR") != "":
		return false
	case forced("FORCE_COLOR"), forced("CLICOLOR_FORCE"):
		return true
	}
	return tty && os.Getenv("TERM") != "dumb"
}

// forPeople leaves out what the words say already, and keeps an event on a line that
// does nothing to a terminal.
func forPeople(groups []string, a slog.Attr) slog.Attr {
	switch {
	case a.Key == "event":
		return slog.Attr{}
	case a.Value.Kind() == slog.KindString:
		return slog.String(a.Key, printable.Text(strings.ReplaceAll(a.Value.String(), "\n", " | ")))
	}
	return a
}

// forMachines writes durations in seconds.
func forMachines(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.Float64(a.Key+"_seconds", math.Round(a.Value.Duration().Seconds()*1000)/1000)
	}
	return a
}

var _ io.Writer = (*Log)(nil)
