// Package tail remembers the end of a stream.
package tail

import (
	"strings"
	"sync"

	"handoff/internal/printable"
)

// Tail keeps the last bytes that were written to it. One goroutine may write
// while others read; the mutex guards the buffer for the time of a copy.
type Tail struct {
	mu   sync.Mutex
	buf  []byte
	most int
}

// New returns a Tail of at most n bytes.
func New(n int) *Tail { return &Tail{most: n} }

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if over := len(p) - t.most; over > 0 {
		p = p[over:]
	}
	if over := len(t.buf) + len(p) - t.most; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// Lines returns the last n lines that are not blank, oldest first, without colours and
// control characters: who reads them may be a terminal. The first
// of all may be cut at its beginning.
func (t *Tail) Lines(n int) []string {
	t.mu.Lock()
	text := string(t.buf)
	t.mu.Unlock()
	var lines []string
	for l := range strings.Lines(text) {
		if l = strings.TrimRight(l, " \t\r\n"); l != "" {
			lines = append(lines, printable.Text(l))
		}
	}
	return lines[max(0, len(lines)-n):]
}

// Gist is the one line of a program's last ones that says why it ended: an error's
// message. A stack stands below it in Node, Ruby and Go, above it in Python.
func Gist(lines []string) string {
	last, found := "", ""
	for _, line := range lines {
		text := strings.TrimSpace(line)
		if text == "" || line[0] == ' ' || line[0] == '\t' || strings.HasPrefix(text, "Node.js v") || strings.Trim(text, "^~}]){[(") == "" {
			continue
		}
		last = text
		word, _, ok := strings.Cut(text, ":")
		word, _, _ = strings.Cut(word, " [") // Error [ERR_MODULE_NOT_FOUND]: …
		if ok && !strings.ContainsAny(word, " /") && (strings.HasSuffix(word, "Error") || strings.HasSuffix(word, "Exception") || word == "panic") {
			found = text
		}
	}
	if found != "" {
		return found
	}
	return last
}
