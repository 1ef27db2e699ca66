package capture

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestPrefix(t *testing.T) {
	var out, errs, recent bytes.Buffer
	k, err := New(Config{Mode: Prefix, Name: "web", Out: &out, Err: &errs, Recent: &recent})
	if err != nil {
		t.Fatal(err)
	}
	s := k.Stream(Worker{Slot: 1, PID: 7, Generation: 2}, Stdout)
	s.Write([]byte("one\ntw"))
	s.Write([]byte("o\n\nthree"))
	k.Stream(Worker{Slot: 0}, Stderr).Write([]byte("wrong\n"))
	if got, want := out.String(), "web.1 | one\nweb.1 | two\nweb.1 | \n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Flush()
	if !strings.HasSuffix(out.String(), "web.1 | three\n") || errs.String() != "web.0 | wrong\n" {
		t.Errorf("%q %q", out.String(), errs.String())
	}
	var l Line
	if err := json.Unmarshal(bytes.SplitN(recent.Bytes(), []byte("\n"), 2)[0], &l); err != nil || l.Line != "one" || l.Slot != 1 || l.PID != 7 || l.Generation != 2 || l.Stream != "stdout" || l.Name != "web" {
		t.Errorf("%+v %v", l, err)
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	k, _ := New(Config{Mode: JSON, Name: "web", Out: &out})
	s := k.Stream(Worker{}, Stdout)
	s.Write([]byte("plain \xff\n{\"level\":30}\n{not json\n"))
	lines := strings.Split(out.String(), "\n")
	var l Line
	if err := json.Unmarshal([]byte(lines[0]), &l); err != nil || l.Line != "plain \ufffd" {
		t.Errorf("%q %v", lines[0], err)
	}
	if lines[1] != `{"level":30}` {
		t.Errorf("%q", lines[1])
	}
	if err := json.Unmarshal([]byte(lines[2]), &l); err != nil || l.Line != "{not json" {
		t.Errorf("%q %v", lines[2], err)
	}
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	k, err := New(Config{Mode: Files, Name: "web", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := k.Stream(Worker{Slot: 1}, Stdout)
	s.Write([]byte("before\n"))
	if err := os.Rename(k.Path(1), k.Path(1)+".1"); err != nil {
		t.Fatal(err)
	}
	if err := k.Reopen(); err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("after\n"))
	for path, want := range map[string]string{k.Path(1) + ".1": "before\n", k.Path(1): "after\n"} {
		if b, err := os.ReadFile(path); string(b) != want {
			t.Errorf("%s: %q %v, want %q", path, b, err, want)
		}
	}
	if _, err := New(Config{Mode: Files, Name: "web", Dir: filepath.Join(k.Path(1), "x")}); err == nil {
		t.Error("a directory below a file")
	}
}

// Whatever is written, in whatever pieces, comes out whole and in order.
func FuzzStream(f *testing.F) {
	f.Add([]byte("a\nb\n"), 1)
	f.Add(bytes.Repeat([]byte("x"), 3*maxLine), 1000)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		if step < 1 {
			return
		}
		var out bytes.Buffer
		k, _ := New(Config{Mode: Prefix, Name: "w", Out: &out})
		s := k.Stream(Worker{}, Stdout)
		for rest := text; len(rest) > 0; {
			n := min(step, len(rest))
			s.Write(rest[:n])
			rest = rest[n:]
		}
		s.Flush()
		got := bytes.ReplaceAll(out.Bytes(), []byte("w.0 | "), nil)
		want := bytes.ReplaceAll(text, []byte("w.0 | "), nil)
		if !bytes.Equal(bytes.ReplaceAll(got, []byte("\n"), nil), bytes.ReplaceAll(want, []byte("\n"), nil)) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// A folder that the workers' user has exchanged for a link to another is not written to.
func TestFolderIsExchanged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	base := t.TempDir()
	logs, secret := filepath.Join(base, "logs"), filepath.Join(base, "secret")
	k, err := New(Config{Mode: Files, Name: "web", Dir: logs})
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(secret, 0o755)
	os.Rename(logs, logs+".old")
	os.Symlink("secret", logs)
	os.Lchown(logs, 65534, 65534)
	if err := k.Reopen(); err == nil {
		t.Error("it was followed")
	}
	k.Stream(Worker{}, Stdout).Write([]byte("line\n"))
	if left, err := os.ReadDir(secret); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

// full is a place that takes room bytes, and says then that the disk is full.
type full struct {
	bytes.Buffer
	room int
}

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, &os.PathError{Op: "write", Path: "web.0.log", Err: syscall.ENOSPC}
	}
	return n, nil
}

// What cannot be written is counted, said at once and from time to time, and once more when
// it is over. A line that was written in part ends before the next one begins.
func TestLost(t *testing.T) { synctest.Test(t, testLost) }

func testLost(t *testing.T) {
	var heard []Loss
	deaf := false
	out := &full{room: 12}
	s := &sink{to: "web.0.log", file: out, lost: func(l Loss) bool {
		if !deaf {
			heard = append(heard, l)
		}
		return !deaf
	}}
	at := time.Unix(1000, 0)
	write := func(after time.Duration, text string) {
		at = at.Add(after)
		s.piece([]byte(text), at)
	}
	write(0, "before\n")
	write(0, "in part\n") // the first that is lost
	write(0, "lost\n")
	write(lossEvery/2, "lost\n")
	deaf = true
	write(lossEvery/2, "lost\n") // is said later
	deaf = false
	write(0, "lost\n")
	out.room = 1 << 10
	write(0, "after\n") // a full disk has room for a line now and then
	out.room = 0
	write(0, "lost\n")
	out.room = 1 << 10
	write(lossEvery-1, "later\n")
	write(1, "over\n")
	write(lossEvery, "fine\n")
	if want := []Loss{{"web.0.log", syscall.ENOSPC, 1}, {"web.0.log", syscall.ENOSPC, 4}, {"web.0.log", nil, 1}}; !slices.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
	if got, want := out.String(), "before\nin pa\nafter\nlater\nover\nfine\n"; got != want {
		t.Errorf("written is %q, want %q", got, want)
	}
}

// What is lost right after that was said is said a while later, without another line.
func TestLostIsSaidLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan Loss, 10)
		deaf := 2 // so often nobody can hear it
		s := &sink{to: "web.0.log", file: &full{}, lost: func(l Loss) bool {
			if len(heard) == 1 && deaf > 0 {
				deaf--
				return false
			}
			heard <- l
			return true
		}}
		s.write([]byte("one\n"))
		s.write([]byte("two\n"))
		s.write([]byte("three\n"))
		synctest.Wait()
		if len(heard) != 1 {
			t.Errorf("%d said at once", len(heard))
		}
		began := time.Now()
		<-time.After(4 * lossEvery)
		for _, want := range []int{1, 2} {
			if got := <-heard; got.Lines != want || got.Err != syscall.ENOSPC || time.Since(began) != 4*lossEvery {
				t.Errorf("%+v, want %d lines", got, want)
			}
		}
	})
}

// A disk that is really full: a file system of 64 KiB.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs root: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	var heard []Loss
	k, err := New(Config{Mode: Files, Name: "web", Dir: dir, Lost: func(l Loss) bool { heard = append(heard, l); return true }})
	if err != nil {
		t.Fatal(err)
	}
	s := k.Stream(Worker{}, Stdout)
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for range 100 {
		s.Write(line)
	}
	if len(heard) == 0 || heard[0] != (Loss{k.Path(0), syscall.ENOSPC, 1}) {
		t.Fatalf("heard %v", heard)
	}
	if k.slot(0).lines+len(heard) < 36 {
		t.Errorf("lost are %d lines, want 36 or more", k.slot(0).lines+1)
	}
	if err := os.Truncate(k.Path(0), 0); err != nil { // somebody has made room
		t.Fatal(err)
	}
	s.Write([]byte("after\n"))
	if b, err := os.ReadFile(k.Path(0)); !bytes.HasSuffix(b, []byte("after\n")) {
		t.Errorf("%q %v", b, err)
	}
}

// Passed on as they are, lines of several workers are not mixed, and what has no line's end
// comes a moment later.
func TestNone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(Config{Mode: None, Out: w})
	if err != nil {
		t.Fatal(err)
	}
	one, two := k.Stream(Worker{Slot: 0}, Stdout), k.Stream(Worker{Slot: 1}, Stdout)
	k.late = time.Hour
	one.Write([]byte("a line\nhalf "))
	two.Write([]byte("of another worker's\n"))
	k.late = time.Millisecond
	one.Write([]byte("a line\nask? "))
	want := "a line\nof another worker's\nhalf a line\nask? "
	got := make([]byte, len(want))
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("%q %v, want %q", got[:n], err, want)
	}
	long := append(bytes.Repeat([]byte("y"), 3*maxWhole), '\n')
	two.Write(long)
	two.Flush()
	one.Flush()
	k.Drain(time.Minute) // returns
	w.Close()
	if b, err := io.ReadAll(r); !bytes.Equal(b, long) {
		t.Errorf("%d bytes, %v, want %d", len(b), err, len(long))
	}
}

// A reader that has gone is said, and is nobody's trouble.
func TestReaderHasGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	var heard []Loss
	k, _ := New(Config{Mode: None, Out: w, Lost: func(l Loss) bool { heard = append(heard, l); return true }})
	s := k.Stream(Worker{}, Stdout)
	for range 100 {
		s.Write([]byte("line\n"))
	}
	s.Flush()
	if len(heard) == 0 || heard[0] != (Loss{Stdout, syscall.EPIPE, 1}) {
		t.Errorf("heard %v", heard)
	}
}

// What another process has made non-blocking is waited for.
func TestNonBlocking(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w") // blocking ones, to Go
	unix.SetNonblock(fds[1], true)
	defer w.Close()
	k, _ := New(Config{Mode: None, Out: w, Lost: func(l Loss) bool { t.Errorf("lost: %v", l); return true }})
	const all = 1 << 20
	read := make(chan int, 1)
	go func() { // ends with the last byte
		n, _ := io.CopyN(io.Discard, r, all)
		read <- int(n)
	}()
	s := k.Stream(Worker{}, Stdout)
	for range all / 1024 {
		s.Write(append(bytes.Repeat([]byte("x"), 1023), '\n'))
	}
	if n := <-read; n != all {
		t.Errorf("%d bytes", n)
	}
}
