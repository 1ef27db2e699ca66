package logging

import (
	"cmp"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"handoff/internal/events"
)

// WorkerEvents is the queue of what the program that has started handoff (the Node
// SDK) follows: the events of the log, and the messages of Node workers, as lines of
// JSON. Each has its number and a blank before it, from 1. Nothing is forgotten before
// it was read, up to maxUnread. It is safe for concurrent use.
//
//	caller                                  master
//	  GET /v1/worker-events            ──►
//	                                   ◄──  1 {…}, 2 {…}
//	  (it is busy)                          … 40 {…}; at waitUnread workers wait with their messages
//	  (it reads)                       ◄──  3 {…} … 40 {…}
//	  (the connection breaks)
//	  GET …?after=40&of=MASTER         ──►
//	                                   ◄──  41 {…}; a larger number: what is between is lost
type WorkerEvents struct {
	Timeout time.Duration // of WriteWait, without a reader; 0: 30 s. Set it before the first

	mu     sync.Mutex // guards all below
	lines  [][]byte   // the last one is number seq
	seq    int64
	read   int64         // number of the last line that was read
	size   int           // of lines, in bytes
	unread int           // of those after read, in bytes
	more   chan struct{} // closed at the next line; nil: no reader waits
	room   chan struct{} // closed when little is unread again; nil: no writer waits
	stuck  bool          // no reader for Timeout: messages are dropped until there is one
	lost   int           // dropped messages
}

const (
	keepRead   = 512 << 10      // bytes that are kept after they were read
	waitUnread = 4 << 20        // unread bytes above which WriteWait waits
	maxUnread  = 2 * waitUnread // unread bytes above which the oldest lines are dropped
	maxBatch   = 128 << 10      // maximum bytes that After returns at once
)

// Write adds a line. It never blocks.
func (q *WorkerEvents) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(line)
	return len(line), nil
}

// WriteWait is Write that may block while the reader is behind: for the messages of a
// worker, which then waits, too. After Timeout without a reader the line is dropped; the
// next reader first gets the number of dropped lines.
func (q *WorkerEvents) WriteWait(line []byte) {
	late := time.NewTimer(cmp.Or(q.Timeout, 30*time.Second))
	defer late.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.unread >= waitUnread && !q.stuck {
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
			q.mu.Lock()
		case <-late.C:
			q.mu.Lock()
			q.stuck = q.unread >= waitUnread
		}
	}
	if q.stuck {
		q.lost++
		return
	}
	q.add(line)
}

func (q *WorkerEvents) add(line []byte) {
	q.seq++
	line = append(append(strconv.AppendInt(nil, q.seq, 10), ' '), line...)
	q.lines = append(q.lines, line)
	q.size, q.unread = q.size+len(line), q.unread+len(line)
	q.trim()
	if q.more != nil {
		close(q.more)
		q.more = nil
	}
}

// trim drops the oldest lines.
func (q *WorkerEvents) trim() {
	for len(q.lines) > 1 && (q.unread > maxUnread || q.size-q.unread > keepRead) {
		size := len(q.lines[0])
		if first := q.seq - int64(len(q.lines)) + 1; first > q.read {
			q.read, q.unread = first, q.unread-size
		}
		q.size -= size
		q.lines[0], q.lines = nil, q.lines[1:]
	}
}

// After returns the remaining lines after number n, and the number of the last one; if
// there is none yet, a channel that is closed at the next line.
func (q *WorkerEvents) After(n int64) (lines [][]byte, last int64, more <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := q.seq - int64(len(q.lines)) + 1
	size := 0
	for last = max(n, first-1); last < q.seq && size < maxBatch; last++ {
		line := q.lines[last+1-first]
		lines, size = append(lines, line), size+len(line)
	}
	if len(lines) > 0 {
		return lines, last, nil
	}
	if q.more == nil {
		q.more = make(chan struct{})
	}
	return nil, n, q.more
}

// Ack records that the lines up to number n were read.
func (q *WorkerEvents) Ack(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := q.seq - int64(len(q.lines)) + 1
	for ; q.read < min(n, q.seq); q.read++ {
		q.unread -= len(q.lines[q.read+1-first])
	}
	q.trim()
	if q.unread >= waitUnread {
		return
	}
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	if q.stuck = false; q.lost > 0 {
		line, _ := json.Marshal(map[string]any{"event": events.ToldLost, "messages": q.lost})
		q.lost = 0
		q.add(append(line, '\n'))
	}
}
