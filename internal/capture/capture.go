// Package capture passes on what workers write: as it is, or as lines with a prefix, as
// JSON, or in a file for each slot. What it has not seen a line's end of it keeps back, up
// to maxLine bytes; where it is passed on as it is, for a moment. What cannot be written
// is counted, and said once ([Loss]): it is no worker's trouble.
package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"handoff/internal/linux"
)

// Mode is what becomes of the lines.
type Mode string

// The modes.
const (
	None   Mode = "none"   // they are passed on as they are
	Prefix Mode = "prefix" // web.0 | line
	JSON   Mode = "json"   // {"time":…,"name":"web","slot":0,…,"line":"…"}; a line that is a JSON object stays as it is
	Files  Mode = "files"  // web.0.log, one for each slot
)

// maxLine is the longest line, in bytes; what is longer becomes several.
const maxLine = 16 << 10

// Worker is who has written a line.
type Worker struct {
	Slot       int
	PID        int
	Generation int
}

// Stream names.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Capture takes the output of all workers. It is safe for concurrent use.
type Capture struct {
	mode     Mode
	name     string
	dir      string
	out, err *sink
	colour   bool
	recent   io.Writer // each line as JSON, for later requests
	lost     func(Loss) bool
	late     time.Duration  // how long a line's end is waited for, with None
	streams  sync.WaitGroup // that something was written to, and that have not ended

	mu    sync.Mutex // guards files against a Reopen
	files map[int]*sink
}

// Config is what New needs.
type Config struct {
	Mode   Mode
	Name   string    // of the service
	Dir    string    // of the files; it is made
	Out    io.Writer // where all but files goes: handoff's stdout
	Err    io.Writer // where stderr goes, as it is or with a prefix
	Colour bool      // of the prefix
	Recent io.Writer // gets each line as JSON, but with None; may be nil
	// Lost hears of what cannot be written, from any goroutine, and must not block. It
	// reports whether it has taken note; else it hears of it again. May be nil.
	Lost func(Loss) bool
}

// Names is a glob of the files' names, also of those that a rotation has renamed.
func (c Config) Names() string { return c.Name + ".[0-9]*.log*" }

// New returns a Capture. With Files, it finds out at once whether it can write; where it
// cannot, what it returns tries again with each line.
func New(c Config) (*Capture, error) {
	k := &Capture{mode: c.Mode, name: c.Name, dir: c.Dir, colour: c.Colour, recent: c.Recent, lost: c.Lost, late: lateAfter, files: map[int]*sink{}}
	if k.recent == nil {
		k.recent = io.Discard
	}
	if k.lost == nil {
		k.lost = func(Loss) bool { return true }
	}
	k.out = &sink{to: Stdout, file: c.Out, lost: k.lost}
	k.err = &sink{to: Stderr, file: c.Err, lost: k.lost}
	if c.Err == nil {
		k.err = k.out
	}
	if k.mode != Files {
		return k, nil
	}
	if err := linux.MakeFolders(k.dir, 0o750); err != nil {
		return k, fmt.Errorf("cannot create the directory of the workers' output: %w", err)
	}
	return k, k.slot(0).open()
}

// Stream returns what takes a stream of a worker's, from one goroutine.
func (k *Capture) Stream(w Worker, stream string) *Stream {
	return &Stream{k: k, w: w, name: stream}
}

// Drain waits until what workers have written has been passed on, up to a timeout: a
// reader of ours may be slow.
func (k *Capture) Drain(timeout time.Duration) {
	done := make(chan struct{})
	go func() { // ends with the streams, or the process
		k.streams.Wait()
		close(done)
	}()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// Stream makes lines of what is written to it. It never fails: a reader of ours
// that is gone is no reason to stop a worker.
type Stream struct {
	k    *Capture
	w    Worker
	name string
	used bool

	mu   sync.Mutex // guards rest against late
	rest []byte
	late *time.Timer // writes rest where no more comes, with None
}

func (s *Stream) Write(p []byte) (int, error) {
	if !s.used {
		s.used = true
		s.k.streams.Add(1)
	}
	if s.k.mode == None {
		s.pass(p)
	} else {
		s.split(p)
	}
	return len(p), nil
}

// split makes lines.
func (s *Stream) split(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		room := maxLine - len(s.rest)
		switch {
		case end >= 0 && end <= room:
			s.k.line(s.w, s.name, append(s.rest, p[:end]...))
			s.rest, p = nil, p[end+1:]
		case len(p) >= room:
			s.k.line(s.w, s.name, append(s.rest, p[:room]...))
			s.rest, p = nil, p[room:]
		default:
			s.rest, p = append(s.rest, p...), nil
		}
	}
}

// pass writes whole lines, so that those of several workers are not mixed, and what has
// no line's end (a question, a progress bar) a moment later.
func (s *Stream) pass(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late != nil {
		s.late.Stop()
	}
	s.rest = append(s.rest, p...)
	end := bytes.LastIndexByte(s.rest, '\n') + 1
	if len(s.rest)-end >= maxWhole {
		end = len(s.rest)
	}
	s.to().write(s.rest[:end])
	if s.rest = append(s.rest[:0], s.rest[end:]...); len(s.rest) == 0 {
		return
	}
	if s.late == nil {
		s.late = time.AfterFunc(s.k.late, s.flush)
	} else {
		s.late.Reset(s.k.late)
	}
}

// lateAfter is late of a Capture.
const lateAfter = 20 * time.Millisecond

func (s *Stream) to() *sink {
	if s.name == Stderr {
		return s.k.err
	}
	return s.k.out
}

// flush writes what has no line's end.
func (s *Stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to().write(s.rest)
	s.rest = s.rest[:0]
}

// Flush writes what has no line's end: nothing more comes.
func (s *Stream) Flush() {
	if s.k.mode == None {
		s.flush()
	} else if len(s.rest) > 0 {
		s.k.line(s.w, s.name, s.rest)
		s.rest = nil
	}
	if s.used {
		s.used = false
		s.k.streams.Done()
	}
}

// Line is a line as JSON.
type Line struct {
	Time       time.Time `json:"time"`
	Name       string    `json:"name"`
	Slot       int       `json:"slot"`
	PID        int       `json:"pid"`
	Generation int       `json:"generation"`
	Stream     string    `json:"stream"`
	Line       string    `json:"line"`
}

func (k *Capture) line(w Worker, stream string, text []byte) {
	wrapped, _ := json.Marshal(Line{time.Now(), k.name, w.Slot, w.PID, w.Generation, stream, string(text)}) // what is not UTF-8 is replaced
	wrapped = append(wrapped, '\n')
	k.recent.Write(wrapped)
	switch k.mode {
	case JSON:
		if t := bytes.TrimSpace(text); len(t) > 1 && t[0] == '{' && json.Valid(t) {
			wrapped = append(text, '\n')
		}
		k.out.write(wrapped)
	case Prefix:
		out := k.out
		if stream == Stderr {
			out = k.err
		}
		out.write(append(append([]byte(k.prefix(w.Slot)), text...), '\n'))
	case Files:
		k.slot(w.Slot).write(append(text, '\n'))
	}
}

// prefix is in a colour by slot, of those that are readable on light and dark.
func (k *Capture) prefix(slot int) string {
	name := k.name + "." + strconv.Itoa(slot)
	if !k.colour {
		return name + " | "
	}
	colours := [...]int{36, 33, 32, 35, 34, 31}
	return fmt.Sprintf("\x1b[%dm%s |\x1b[0m ", colours[slot%len(colours)], name)
}

// Path is the file of a slot.
func (k *Capture) Path(slot int) string {
	return filepath.Join(k.dir, k.name+"."+strconv.Itoa(slot)+".log")
}

// slot returns what writes the file of a slot.
func (k *Capture) slot(slot int) *sink {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.files[slot]
	if f == nil {
		f = &sink{to: k.Path(slot), lost: k.lost}
		k.files[slot] = f
	}
	return f
}

// Reopen reopens the files for the next lines, after they were renamed.
func (k *Capture) Reopen() error {
	k.mu.Lock()
	all := slices.Collect(maps.Values(k.files))
	k.mu.Unlock()
	for _, f := range all {
		f.close()
	}
	if k.mode != Files {
		return nil
	}
	return k.slot(0).open()
}
