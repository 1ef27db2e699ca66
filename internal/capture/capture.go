// Package capture makes lines of what workers write: with a prefix, as JSON, or
// into a file for each slot. What it has not seen a line's end of it keeps back,
// up to maxLine bytes.
package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"handoff/internal/linux"
)

// Mode is what becomes of the lines.
type Mode string

// The modes.
const (
	None   Mode = "none"   // they are not captured: workers have handoff's own stdout
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
	out, err io.Writer
	colour   bool
	recent   io.Writer // each line as JSON, for who asks later

	mu    sync.Mutex // guards files against a Reopen during a write
	files map[int]*os.File
}

// Config is what New needs.
type Config struct {
	Mode   Mode
	Name   string    // of the service
	Dir    string    // of the files; it is made
	Out    io.Writer // where prefix and JSON go: handoff's stdout
	Err    io.Writer // where prefixed lines of stderr go
	Colour bool      // of the prefix
	Recent io.Writer // gets each line as JSON; may be nil
}

// Names is a glob of the files' names, also of those that a rotation has renamed.
func (c Config) Names() string { return c.Name + ".[0-9]*.log*" }

// New returns a Capture. With Files, it finds out at once whether it can write.
func New(c Config) (*Capture, error) {
	k := &Capture{mode: c.Mode, name: c.Name, dir: c.Dir, out: c.Out, err: c.Err, colour: c.Colour, recent: c.Recent, files: map[int]*os.File{}}
	if k.recent == nil {
		k.recent = io.Discard
	}
	if k.mode != Files {
		return k, nil
	}
	if err := linux.MakeFolders(k.dir, 0o750); err != nil {
		return nil, fmt.Errorf("cannot create the directory of the workers' output: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, err := k.file(0)
	return k, err
}

// Stream returns what takes a stream of a worker's, from one goroutine.
func (k *Capture) Stream(w Worker, stream string) *Stream {
	return &Stream{k: k, w: w, name: stream}
}

// Stream makes lines of what is written to it. It never fails: a reader of ours
// that is gone is no reason to stop a worker.
type Stream struct {
	k    *Capture
	w    Worker
	name string
	rest []byte
}

func (s *Stream) Write(p []byte) (int, error) {
	n := len(p)
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
	return n, nil
}

// Flush writes what has no line's end.
func (s *Stream) Flush() {
	if len(s.rest) > 0 {
		s.k.line(s.w, s.name, s.rest)
		s.rest = nil
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
	out := k.out
	if stream == Stderr && k.err != nil {
		out = k.err
	}
	switch k.mode {
	case JSON:
		if t := bytes.TrimSpace(text); len(t) > 1 && t[0] == '{' && json.Valid(t) {
			wrapped = append(text, '\n')
		}
		k.out.Write(wrapped)
	case Prefix:
		out.Write(append(append([]byte(k.prefix(w.Slot)), text...), '\n')) // in one call, so that lines stay whole
	case Files:
		k.mu.Lock()
		defer k.mu.Unlock()
		if f, err := k.file(w.Slot); err == nil {
			f.Write(append(text, '\n'))
		}
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

// file returns the open file of a slot. The caller has the mutex.
func (k *Capture) file(slot int) (*os.File, error) {
	if f := k.files[slot]; f != nil {
		return f, nil
	}
	f, err := linux.OpenOutput(k.Path(slot), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o640) // a link there may be a worker's
	if err != nil {
		return nil, fmt.Errorf("cannot write the workers' output: %w", err)
	}
	k.files[slot] = f
	return f, nil
}

// Reopen has the next lines go to files of the same names, made anew where
// somebody has renamed them.
func (k *Capture) Reopen() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for slot, f := range k.files {
		f.Close()
		delete(k.files, slot)
	}
	if k.mode != Files {
		return nil
	}
	_, err := k.file(0)
	return err
}
