package logging

import (
	"cmp"
	"encoding/json"
	"strconv"
	"sync"
	"time"
)

// Told is what the program that has started handoff is told: lines of JSON, each with
// its number and a blank before it, from 1. Nothing is forgotten before somebody has
// read it, up to toldMost. It is safe for concurrent use.
//
//	caller                                  master
//	  GET /v1/told                     ──►
//	                                   ◄──  1 {…}, 2 {…}
//	  (it is busy)                          … 40 {…}; at toldUnread workers wait with their messages
//	  (it reads)                       ◄──  3 {…} … 40 {…}
//	  (the connection breaks)
//	  GET /v1/told?after=40&of=MASTER  ──►
//	                                   ◄──  41 {…}; a larger number: what is between is lost
type Told struct {
	Patience time.Duration // of Say, while nobody reads; 0: 30 s. Set it before the first

	mu     sync.Mutex // guards all below
	lines  [][]byte   // the last one is number seq
	seq    int64
	read   int64         // the last that was read
	size   int           // of lines, in bytes
	unread int           // of those after read, in bytes
	more   chan struct{} // closed at the next line; nil: nobody waits for it
	room   chan struct{} // closed when little is unread again; nil: nobody waits for it
	stuck  bool          // nobody has read for so long: until somebody does no one waits
	lost   int           // messages since then
}

const (
	toldKept   = 512 << 10      // bytes that are kept after they were read
	toldUnread = 4 << 20        // unread bytes, from which on Say waits
	toldMost   = 2 * toldUnread // unread bytes, above which the oldest lines go
	toldBatch  = 128 << 10      // bytes that are read at once, if there are more
)

// Write adds a line. It never blocks.
func (t *Told) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(line)
	return len(line), nil
}

// Say is Write for who can wait while the reader is behind: a worker, whose process
// waits in its turn. After Patience without a reader the line is dropped, which is told
// when there is one.
func (t *Told) Say(line []byte) {
	late := time.NewTimer(cmp.Or(t.Patience, 30*time.Second))
	defer late.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.unread >= toldUnread && !t.stuck {
		if t.room == nil {
			t.room = make(chan struct{})
		}
		room := t.room
		t.mu.Unlock()
		select {
		case <-room:
			t.mu.Lock()
		case <-late.C:
			t.mu.Lock()
			t.stuck = t.unread >= toldUnread
		}
	}
	if t.stuck {
		t.lost++
		return
	}
	t.add(line)
}

func (t *Told) add(line []byte) {
	t.seq++
	line = append(append(strconv.AppendInt(nil, t.seq, 10), ' '), line...)
	t.lines = append(t.lines, line)
	t.size, t.unread = t.size+len(line), t.unread+len(line)
	t.trim()
	if t.more != nil {
		close(t.more)
		t.more = nil
	}
}

// trim forgets the oldest lines.
func (t *Told) trim() {
	for len(t.lines) > 1 && (t.unread > toldMost || t.size-t.unread > toldKept) {
		size := len(t.lines[0])
		if first := t.seq - int64(len(t.lines)) + 1; first > t.read {
			t.read, t.unread = first, t.unread-size
		}
		t.size -= size
		t.lines[0], t.lines = nil, t.lines[1:]
	}
}

// After returns lines after number n, or what is left of them, and the number of the
// last one; where there is none yet, a channel that is closed when there is.
func (t *Told) After(n int64) (lines [][]byte, last int64, more <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.seq - int64(len(t.lines)) + 1
	size := 0
	for last = max(n, first-1); last < t.seq && size < toldBatch; last++ {
		line := t.lines[last+1-first]
		lines, size = append(lines, line), size+len(line)
	}
	if len(lines) > 0 {
		return lines, last, nil
	}
	if t.more == nil {
		t.more = make(chan struct{})
	}
	return nil, n, t.more
}

// Took says that the lines up to number n are read.
func (t *Told) Took(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.seq - int64(len(t.lines)) + 1
	for ; t.read < min(n, t.seq); t.read++ {
		t.unread -= len(t.lines[t.read+1-first])
	}
	t.trim()
	if t.unread >= toldUnread {
		return
	}
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
	if t.stuck = false; t.lost > 0 {
		line, _ := json.Marshal(map[string]any{"event": "told.lost", "messages": t.lost})
		t.lost = 0
		t.add(append(line, '\n'))
	}
}
