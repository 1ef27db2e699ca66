package logging

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// take reads everything that is there, as a follower does.
func take(t *Told, n int64) (text string, last int64) {
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
		t.Took(n)
	}
}

func TestTold(t *testing.T) {
	told := &Told{}
	told.Write([]byte("a\n"))
	told.Write([]byte("b\n"))
	if text, last := take(told, 0); text != "1 a\n2 b\n" || last != 2 {
		t.Errorf("%q, %d", text, last)
	}
	if text, _ := take(told, 1); text != "2 b\n" { // who comes back
		t.Errorf("%q", text)
	}
	lines, _, more := told.After(2)
	if len(lines) != 0 {
		t.Errorf("%q", lines)
	}
	told.Write([]byte("c\n"))
	<-more
	if text, _ := take(told, 2); text != "3 c\n" {
		t.Errorf("%q", text)
	}
	if text, last := take(told, 99); text != "" || last != 99 {
		t.Errorf("%q, %d", text, last)
	}
}

// fill makes as much unread as lets Say wait.
func fill(told *Told, bytes int) {
	line := []byte(strings.Repeat("x", 1<<10-1) + "\n")
	for range bytes / len(line) {
		told.Write(line)
	}
}

// Who can wait does while nobody reads, and loses nothing; who cannot goes before.
func TestToldWaits(t *testing.T) {
	told := &Told{}
	fill(told, toldUnread)
	said := make(chan struct{})
	go func() { // ends when it is read
		defer close(said)
		for range 3 {
			told.Say([]byte("said\n"))
		}
	}()
	told.Write([]byte("written\n"))
	text, n := take(told, 0)
	<-said
	more, n := take(told, n)
	text += more
	if i := strings.Index(text, "written"); i < 0 || strings.Index(text, "said") < i || strings.Count(text, "said") != 3 {
		t.Errorf("…%q", text[len(text)-100:])
	}
	if lines := strings.Count(text, "\n"); int64(lines) != n {
		t.Errorf("%d lines, the last is number %d", lines, n)
	}
}

// Where nobody reads at all, it is bounded, and the reader can tell.
func TestToldIsBounded(t *testing.T) {
	told := &Told{Patience: time.Nanosecond}
	fill(told, toldUnread)
	told.Say([]byte("lost\n"))
	told.Say([]byte("lost\n"))
	if text, _ := take(told, 0); strings.Contains(text, "lost\n") || !strings.HasSuffix(text, ` {"event":"told.lost","messages":2}`+"\n") {
		t.Errorf("…%q", text[len(text)-100:])
	}
	if told.size > toldKept || told.unread != 0 {
		t.Errorf("%d bytes are kept, %d unread", told.size, told.unread)
	}
	n := told.seq
	fill(told, toldMost+toldUnread)
	if told.unread > toldMost || told.size > toldMost+toldKept {
		t.Errorf("%d bytes are kept, %d unread", told.size, told.unread)
	}
	text, last := take(told, n)
	if first, _, _ := strings.Cut(text, " "); first == "" || first == "1" || int64(strings.Count(text, "\n")) >= last-n {
		t.Errorf("the first is %q, %d of %d", first, strings.Count(text, "\n"), last-n)
	}
	if told.unread != 0 {
		t.Errorf("%d unread", told.unread)
	}
}
