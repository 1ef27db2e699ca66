// Package repeat passes on what several starts of one program write once: a program that
// throws at its start has a stack for each worker and each attempt, all the same.
//
//	worker 1  A  B  C  end     A, B, C are passed on
//	worker 2  A  B  C  end     nothing
//	worker 3  A  B  D …        A, B, D when D comes, and all that follows
//	worker 4  A  B     serves  A, B when it serves, and all that follows
//
// Whose turn it is does not matter: a line is passed on by whichever has it first.
package repeat

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Starts are those of one program. It is safe for concurrent use.
type Starts struct {
	times   *regexp.Regexp
	mu      sync.Mutex // guards all below, for the time of a comparison
	known   []*text    // the newest last
	failure string     // how the last one that has failed did
}

// New returns those of a program that has not been started yet.
func New() *Starts {
	return &Starts{times: regexp.MustCompile(`\d{4}[-/]\d\d[-/]\d\d[T ]|\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:?\d\d)?|\b1\d{9,12}\b|\b\d+([.,]\d+)? ?m?s\b`)}
}

// text is what some of the starts have written so far, line by line.
type text struct{ lines []string }

const (
	maxKnown = 4        // texts
	maxLines = 200      // of one
	maxHeld  = 16 << 10 // bytes that are kept back of one start
)

// Writer passes on what one process writes to stderr. Write and Flush are of one
// goroutine, Serves of any.
type Writer struct {
	starts *Starts
	pid    *regexp.Regexp
	out    io.Writer

	mu   sync.Mutex // guards all below, also while out takes its time
	open bool       // everything is passed on
	like []*text    // that begin with what it has written
	line int        // how many lines it has written
	held []byte     // lines that others have written before; the last one may lack its end
	rest int        // length of that last one
}

// Writer returns what takes the output of a process that starts.
func (s *Starts) Writer(pid int, out io.Writer) *Writer {
	return &Writer{starts: s, pid: word(pid), out: out}
}

// Write never fails: a reader of ours that is gone is no reason to stop a program.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 && !w.open {
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			w.held, w.rest = append(w.held, p...), w.rest+len(p)
			if len(w.held) > maxHeld {
				w.release()
			}
			return n, nil
		}
		w.held, w.rest, p = append(w.held, p[:end]...), w.rest+end, p[end:]
		w.ended()
	}
	if len(p) > 0 {
		w.out.Write(p)
	}
	return n, nil
}

// ended takes the last line of what is held: others have written it, or it is passed on.
func (w *Writer) ended() {
	last := w.held[len(w.held)-w.rest:]
	switch w.compare(w.starts.key(string(last), w.pid)) {
	case before:
	case first:
		w.out.Write(last)
		w.held = nil
	case differs:
		w.out.Write(w.held)
		w.held = nil
	case tooMuch:
		w.release()
	}
	w.rest = 0
	if len(w.held) > maxHeld {
		w.release()
	}
}

func (w *Writer) release() {
	w.open = true
	if len(w.held) > 0 {
		w.out.Write(w.held)
	}
	w.held, w.like, w.rest = nil, nil, 0
}

type compared int

const (
	before  compared = iota // others have written the line
	first                   // it continues what others, or it alone, have written
	differs                 // others have gone on in another way
	tooMuch
)

func (w *Writer) compare(line string) compared {
	w.starts.mu.Lock()
	defer w.starts.mu.Unlock()
	at := w.line
	w.line++
	if at >= maxLines {
		return tooMuch
	}
	if at == 0 {
		w.like = slices.Clone(w.starts.known)
	}
	same := slices.DeleteFunc(slices.Clone(w.like), func(t *text) bool { return at < len(t.lines) && t.lines[at] != line })
	for _, t := range same {
		if at < len(t.lines) {
			w.like = same
			return before
		}
	}
	if len(same) > 0 {
		w.like = same[len(same)-1:]
		w.like[0].lines = append(w.like[0].lines, line)
		return first
	}
	var lines []string
	if len(w.like) > 0 {
		lines = slices.Clone(w.like[0].lines[:at])
	}
	t := &text{append(lines, line)}
	w.starts.known = append(w.starts.known, t)
	w.starts.known = w.starts.known[max(0, len(w.starts.known)-maxKnown):]
	w.like = []*text{t}
	if at == 0 {
		return first
	}
	return differs
}

// Serves passes on what is held, and everything from now on: the process has started. It
// may block as long as its reader does.
func (w *Writer) Serves() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open {
		w.release()
	}
}

// Flush is for the end: what others have written before is dropped.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open && w.rest > 0 {
		w.ended()
	}
	w.held = nil
	if f, ok := w.out.(interface{ Flush() }); ok {
		f.Flush()
	}
}

// Failed takes how a start has ended, with the last lines of its stderr, and reports whether
// the one before has ended so: but for pids and times.
func (s *Starts) Failed(pid int, reason string, lines []string) (same bool) {
	how := reason + "\n" + s.key(strings.Join(lines, "\n"), word(pid))
	s.mu.Lock()
	defer s.mu.Unlock()
	same, s.failure = s.failure == how, how
	return same
}

func word(pid int) *regexp.Regexp { return regexp.MustCompile(`\b` + strconv.Itoa(pid) + `\b`) }

// key is a line without what differs from start to start: the pid, and times.
func (s *Starts) key(line string, pid *regexp.Regexp) string {
	return pid.ReplaceAllString(s.times.ReplaceAllString(strings.TrimRight(line, "\r\n"), "TIME"), "PID")
}
