package logging

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// take reads everything that is there, as a follower does.
func take(t *WorkerEvents, n int64) (text string, last int64) {
	var all bytes.Buffer
	for {
		lines, last, _ := t.After(n)
		if len(lines) == 0 {
			return all.String(), n
		}
		for _, line := range lines {
			all.Write(line)
		}
		n = last
		t.Ack(n)
	}
}

func TestWorkerEvents(t *testing.T) {
	queue := &WorkerEvents{}
	queue.Write([]byte("a\n"))
	queue.Write([]byte("b\n"))
	if text, last := take(queue, 0); text != "1 a\n2 b\n" || last != 2 {
		t.Errorf("%q, %d", text, last)
	}
	if text, _ := take(queue, 1); text != "2 b\n" { // who comes back
		t.Errorf("%q", text)
	}
	lines, _, more := queue.After(2)
	if len(lines) != 0 {
		t.Errorf("%q", lines)
	}
	queue.Write([]byte("c\n"))
	<-more
	if text, _ := take(queue, 2); text != "3 c\n" {
		t.Errorf("%q", text)
	}
	if text, last := take(queue, 99); text != "" || last != 99 {
		t.Errorf("%q, %d", text, last)
	}
}

// fill makes as much unread as lets WriteWait wait.
func fill(queue *WorkerEvents, bytes int) {
	line := []byte(strings.Repeat("x", 1<<10-1) + "\n")
	for range bytes / len(line) {
		queue.Write(line)
	}
}

// Who can wait does while nobody reads, and loses nothing; who cannot goes before.
func TestWorkerEventsWaits(t *testing.T) {
	queue := &WorkerEvents{}
	fill(queue, waitUnread)
	said := make(chan struct{})
	go func() { // ends when it is read
		defer close(said)
		for range 3 {
			queue.WriteWait([]byte("said\n"))
		}
	}()
	queue.Write([]byte("written\n"))
	text, n := take(queue, 0)
	<-said
	more, n := take(queue, n)
	text += more
	if i := strings.Index(text, "written"); i < 0 || strings.Index(text, "said") < i || strings.Count(text, "said") != 3 {
		t.Errorf("…%q", text[len(text)-100:])
	}
	if lines := strings.Count(text, "\n"); int64(lines) != n {
		t.Errorf("%d lines, the last is number %d", lines, n)
	}
}

// Where nobody reads at all, it is bounded, and the reader can tell.
func TestWorkerEventsIsBounded(t *testing.T) {
	queue := &WorkerEvents{Timeout: time.Nanosecond}
	fill(queue, waitUnread)
	queue.WriteWait([]byte("lost\n"))
	queue.WriteWait([]byte("lost\n"))
	if text, _ := take(queue, 0); strings.Contains(text, "lost\n") || !strings.HasSuffix(text, ` {"event":"told.lost","messages":2}`+"\n") {
		t.Errorf("…%q", text[len(text)-100:])
	}
	if queue.size > keepRead || queue.unread != 0 {
		t.Errorf("%d bytes are kept, %d unread", queue.size, queue.unread)
	}
	n := queue.seq
	fill(queue, maxUnread+waitUnread)
	if queue.unread > maxUnread || queue.size > maxUnread+keepRead {
		t.Errorf("%d bytes are kept, %d unread", queue.size, queue.unread)
	}
	text, last := take(queue, n)
	if first, _, _ := strings.Cut(text, " "); first == "" || first == "1" || int64(strings.Count(text, "\n")) >= last-n {
		t.Errorf("the first is %q, %d of %d", first, strings.Count(text, "\n"), last-n)
	}
	if queue.unread != 0 {
		t.Errorf("%d unread", queue.unread)
	}
}
