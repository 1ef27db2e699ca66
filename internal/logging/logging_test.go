package logging

import (
	"bufio"
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file has a line of JSON for each event at its level, with durations in seconds; the
// events have the same, whatever the format.
func TestLog(t *testing.T) {
	for _, format := range []string{"json", "text", "auto"} {
		path := filepath.Join(t.TempDir(), "log")
		l, err := New(format, slog.LevelWarn, path, "web")
		if err != nil {
			t.Fatal(err)
		}
		l.Info("Not at this level", "event", "a.b")
		l.SetLevel(slog.LevelInfo)
		l.Info("Hello", "event", "a.c", "after", 1500*time.Millisecond+123*time.Microsecond, "stderr", "one\ntwo\x1b[2J")
		l.Flush()
		b, err := os.ReadFile(path)
		if err != nil || bytes.Count(b, []byte("\n")) != 1 || bytes.Contains(b, []byte("\x1b[2J")) {
			t.Fatalf("%s: %v, %s", format, err, b)
		}
		if text := string(b); format == "text" {
			if strings.Contains(text, "a.c") || !strings.Contains(text, "one | two") || !strings.Contains(text, "Hello") {
				t.Errorf("%s", text)
			}
		} else if got := decode(t, b); got["event"] != "a.c" || got["after_seconds"] != 1.5 || got["name"] != "web" || got["msg"] != "Hello" {
			t.Errorf("%s: %s", format, text)
		}
		events := l.Events.Last(10)
		if len(events) != 2 || decode(t, events[1])["after_seconds"] != 1.5 {
			t.Errorf("%s: %s", format, events)
		}
	}
}

func decode(t *testing.T, line []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(line, &v); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return v
}

// After a rename of the file, Reopen writes a new one; where it cannot, the old one
// stays.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l, err := New("json", slog.LevelInfo, path, "")
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		l.Info(text)
		l.Flush()
	}
	say("one")
	os.Rename(path, path+".1")
	say("two")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	say("three")
	os.Rename(path, path+".2")
	os.Mkdir(path, 0o755)
	if l.Reopen() == nil {
		t.Error("a folder is a log file")
	}
	say("four")
	for name, want := range map[string]string{path + ".1": "one two", path + ".2": "three four"} {
		b, _ := os.ReadFile(name)
		var got []string
		for line := range strings.Lines(string(b)) {
			got = append(got, decode(t, []byte(line))["msg"].(string))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, err := New("json", slog.LevelInfo, filepath.Join(dir, "none", "log"), ""); err == nil {
		t.Error("a file in no folder")
	}
}

// A reader that is stuck holds nobody up: lines wait, then are dropped, which is said.
func TestStuckReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.SetReadDeadline(time.Now().Add(40 * time.Second)) // for failure only
	l, err := New("json", slog.LevelInfo, "", "")
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.file = w // in place of stderr
	l.mu.Unlock()
	text := strings.Repeat("x", 100)
	const n = maxLines + 2000 // a pipe has room for some hundred
	for i := range n {
		l.Info(text, "i", i)
	}
	lost := l.lost.Load()
	if lost == 0 {
		t.Fatal("nothing was dropped")
	}
	lines := bufio.NewScanner(r)
	got, said := 0, 0.0
	for said == 0 && lines.Scan() {
		if v := decode(t, lines.Bytes()); v["event"] == "log.lost" {
			said = v["lines"].(float64)
		} else {
			got++
		}
	}
	if said == 0 || got == 0 || got+int(said) > n {
		t.Errorf("%d lines are read, %v are said to be lost, %d were", got, said, lost)
	}
	for got+int(said) < n && lines.Scan() { // in their order
		v := decode(t, lines.Bytes())
		if v["i"] == nil {
			said += v["lines"].(float64)
			continue
		}
		got++
	}
	if got+int(said) != n {
		t.Errorf("%d lines are read, %v lost, of %d", got, said, n)
	}
}

func TestColour(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		tty  bool
		want bool
	}{
		{nil, true, true}, {nil, false, false},
		{map[string]string{"NO_COLOR": "1"}, true, false},
		{map[string]string{"NO_COLOR": "1", "FORCE_COLOR": "1"}, true, false},
		{map[string]string{"FORCE_COLOR": "1"}, false, true},
		{map[string]string{"FORCE_COLOR": "0"}, false, false},
		{map[string]string{"CLICOLOR_FORCE": "1"}, false, true},
		{map[string]string{"TERM": "dumb"}, true, false},
	} {
		for _, name := range []string{"NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"} {
			t.Setenv(name, c.env[name])
		}
		t.Setenv("TERM", "xterm"+c.env["TERM"])
		if c.env["TERM"] != "" {
			t.Setenv("TERM", c.env["TERM"])
		}
		if got := Colour(c.tty); got != c.want {
			t.Errorf("%v, terminal %v: %v", c.env, c.tty, got)
		}
	}
}

// Handlers with attributes write them to both sides.
func TestBoth(t *testing.T) {
	var a, b bytes.Buffer
	log := slog.New(both{slog.NewJSONHandler(&a, nil), slog.NewJSONHandler(&b, nil)}).With("k", 1).WithGroup("g")
	log.Info("x", "n", 2)
	if a.String() != b.String() || !strings.Contains(a.String(), `"k":1,"g":{"n":2}`) {
		t.Errorf("%s%s", &a, &b)
	}
}
