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
// control characters: who reads them may be a terminal. The first of all may be cut at its
// beginning. If an error's stack is longer than that, they are its message and the first
// lines of the stack.
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
	return excerpt(lines, n)
}

// excerpt returns n of lines: the last ones, or, if these are all of an error's stack, those
// from its message on.
func excerpt(lines []string, n int) []string {
	from := max(0, len(lines)-n)
	for i := len(lines) - 1; i >= 0; i-- {
		if isStack(lines[i]) {
			continue
		}
		if isError(strings.TrimSpace(lines[i])) {
			from = min(from, i)
		}
		break
	}
	return lines[from : from+min(n, len(lines))]
}

// Gist is the one line of a program's last ones that says why it ended: an error's
// message. A stack stands below it in Node, Ruby and Go, above it in Python.
func Gist(lines []string) string {
	last, found := "", ""
	for _, line := range lines {
		if isStack(line) {
			continue
		}
		if last = strings.TrimSpace(line); isError(last) {
			found = last
		}
	}
	if found != "" {
		return found
	}
	return last
}

// isStack reports whether a line is one of those that stand around an error's message.
func isStack(line string) bool {
	text := strings.TrimSpace(line)
	return text == "" || line[0] == ' ' || line[0] == '\t' || strings.HasPrefix(text, "Node.js v") || strings.HasPrefix(text, "Emitted 'error' event ") ||
		strings.Trim(text, "^~}]){[(") == ""
}

// isError reports whether a line is the message of an error.
func isError(text string) bool {
	word, _, ok := strings.Cut(text, ":")
	word, _, _ = strings.Cut(word, " [") // Error [ERR_MODULE_NOT_FOUND]: …
	return ok && !strings.ContainsAny(word, " /") && (strings.HasSuffix(word, "Error") || strings.HasSuffix(word, "Exception") || word == "panic")
}
