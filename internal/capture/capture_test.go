package capture

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
