package logging

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The disk is full in the middle of a line, and then is not: every line that is there is
// whole, and how many are not is said, with the reason.
func TestDiskIsFull(t *testing.T) {
	if os.Getenv("LOGGING_TEST_FULL") == "" { // a limit on this process's files stands for the disk
		rerun(t, "LOGGING_TEST_FULL=1")
		return
	}
	path := filepath.Join(t.TempDir(), "log")
	l, err := New("json", slog.LevelInfo, path, "")
	if err != nil {
		t.Fatal(err)
	}
	limit(t, 1000)
	const n = 20
	for range n {
		l.Info(strings.Repeat("x", 100))
	}
	l.Flush()
	limit(t, unix.RLIM_INFINITY)
	l.mu.Lock()
	lost := l.failing.lines
	l.failing.at = l.failing.at.Add(-calm)
	l.mu.Unlock()
	l.Info("room again")
	l.Flush()
	b, err := os.ReadFile(path)
	if err != nil || lost == 0 {
		t.Fatalf("%d lost, %v", lost, err)
	}
	whole, said := 0, ""
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("}\n")) {
			continue // the one that was cut off
		}
		v := decode(t, line)
		if whole++; v["event"] == "log.lost" {
			said = v["error"].(string)
			if int(v["lines"].(float64)) != lost {
				t.Errorf("%v lines are said to be lost, %d are", v["lines"], lost)
			}
		}
	}
	if said != "file too large" || whole != n-lost+2 {
		t.Errorf("%q is said, %d lines are whole, %d of %d lost:\n%s", said, whole, lost, n, b)
	}
}

// rerun runs this test in a process of its own.
func rerun(t *testing.T, env string) {
	t.Helper()
	p, err := os.StartProcess(os.Args[0], []string{os.Args[0], "-test.run=^" + t.Name() + "$"},
		&os.ProcAttr{Env: append(os.Environ(), env), Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(40*time.Second, func() { p.Kill() })
	if state, err := p.Wait(); err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
}

// limit limits the size of files that this process writes.
func limit(t *testing.T, bytes uint64) {
	t.Helper()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}); err != nil {
		t.Fatal(err)
	}
}
