package trust

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody, other = 65534, 65533

// world is a folder that others can reach, with files of several users.
func world(t *testing.T) (dir string, file func(name string, uid, gid int, mode os.FileMode) string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "trust")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	return dir, func(name string, uid, gid int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, []byte("text"), 0o600)
		}
		if err = errors.Join(err, os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

func TestRootReadsWhatNobodyElseCanWrite(t *testing.T) {
	dir, file := world(t)
	for _, c := range []struct {
		name     string
		uid, gid int
		mode     os.FileMode
		user     int    // that workers run as
		want     string // "": root's; "workers": of that user; else of the error
	}{
		{"root", 0, 0, 0o644, 0, ""},
		{"root-root-writable", 0, 0, 0o664, nobody, ""},
		{"root-group", 0, other, 0o664, 0, "its group 65533 can write to it"},
		{"root-group-readable", 0, other, 0o640, 0, ""},
		{"everybody", 0, 0, 0o666, nobody, "anyone can write to it"},
		{"another", other, 0, 0o600, 0, "it belongs to user 65533"},
		{"another-than-workers", other, 0, 0o600, nobody, "it belongs to user 65533"},
		{"workers", nobody, nobody, 0o644, nobody, "workers"},
		{"workers-group", nobody, nobody, 0o664, nobody, "workers"},
		{"workers-other-group", nobody, other, 0o664, nobody, "its group 65533 can write to it"},
		{"workers-of-nobody", nobody, nobody, 0o644, 0, "it belongs to user"},
		{"root-workers-group", 0, nobody, 0o664, nobody, "workers"},
	} {
		path := file(c.name, c.uid, c.gid, c.mode)
		text, workers, err := Reader{User: c.user, Group: c.user}.ReadFile(path)
		if c.want == "" || c.want == "workers" {
			if err != nil || string(text) != "text" || workers != (c.want == "workers") {
				t.Errorf("%s: %q, %v, %v", c.name, text, workers, err)
			}
		} else if te := (*Error)(nil); !errors.As(err, &te) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	link := filepath.Join(dir, "link")
	os.Symlink("root", link)
	if _, _, err := (Reader{}).ReadFile(link); err != nil {
		t.Error(err)
	}
	os.Lchown(link, other, other) // who says which file of root's it is
	if _, _, err := (Reader{}).ReadFile(link); err == nil {
		t.Error("a link of another user was followed")
	}
	fifo := filepath.Join(dir, "fifo")
	unix.Mkfifo(fifo, 0o600)
	if _, _, err := (Reader{}).ReadFile(fifo); err == nil { // and does not wait
		t.Error("a pipe was read")
	}
	terminal := filepath.Join(dir, "terminal") // of the workers' user, who says nothing
	os.Symlink("/dev/ptmx", terminal)
	os.Lchown(terminal, nobody, nobody)
	if _, _, err := (Reader{User: nobody, Group: nobody}).ReadFile(terminal); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a terminal was read: %v", err)
	}
}

// What is read by its name is as good as the folders that lead to it.
func TestFoldersCount(t *testing.T) {
	_, file := world(t)
	file("theirs/", other, other, 0o755)
	file("workers/", nobody, nobody, 0o755)
	for _, c := range []struct {
		path string
		want string
	}{
		{file("root.js", 0, 0, 0o644), ""},
		{file("theirs/root.js", 0, 0, 0o644), "theirs: it belongs to user 65533"},
		{file("workers/root.js", 0, 0, 0o644), "workers"},
	} {
		workers, err := Reader{User: nobody, Group: nobody}.Check(c.path)
		if (c.want == "" || c.want == "workers") && (err != nil || workers != (c.want == "workers")) ||
			c.want != "" && c.want != "workers" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, %v; want %q", c.path, workers, err, c.want)
		}
	}
}

// A user who is not root takes no file that somebody has put where everybody can.
func TestPlanted(t *testing.T) {
	dir, file := world(t)
	path := file("planted", other, other, 0o644)
	r := Reader{UID: nobody}
	if _, _, err := r.ReadFile(path); err != nil { // the folder is root's
		t.Error(err)
	}
	os.Chmod(dir, 0o777|os.ModeSticky)
	if _, _, err := r.ReadFile(path); err == nil || !strings.Contains(err.Error(), "anyone can write to") {
		t.Error(err)
	}
	if _, _, err := r.ReadFile(file("own", nobody, nobody, 0o644)); err != nil {
		t.Error(err)
	}
}

// What is executed, or loaded by workers, is nobody's else to exchange.
func TestReplaceable(t *testing.T) {
	dir, file := world(t)
	file("theirs/", other, other, 0o755)
	file("theirs/roots/", 0, 0, 0o755)
	file("open/", 0, 0, 0o777)
	file("sticky/", 0, 0, 0o777|os.ModeSticky)
	file("staff/", 0, 50, 0o775)
	os.Symlink(filepath.Join(dir, "theirs/roots/x"), filepath.Join(dir, "link"))
	for _, c := range []struct{ path, want string }{
		{file("x", 0, 0, 0o755), ""},
		{file("sticky/x", 0, 0, 0o755), ""},
		{file("staff/x", 0, 0, 0o755), ""},
		{file("sticky/y", other, other, 0o755), "y belongs to user 65533"},
		{file("theirs/roots/x", 0, 0, 0o755), "theirs belongs to user 65533"},
		{filepath.Join(dir, "link"), "theirs belongs to user 65533"},
		{file("open/x", 0, 0, 0o755), "anyone can write to "},
		{filepath.Join(dir, "missing"), "no such file"},
	} {
		err := Replaceable(c.path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
}
