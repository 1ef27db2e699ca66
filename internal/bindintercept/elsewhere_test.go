package bindintercept

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A socket is bound to what its program asked for, as far as that can see, and its file is
// beside: with the program's umask, and nothing is left of how it was done.
func TestBindBeside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("of an absolute path: needs CAP_SYS_CHROOT")
	}
	dir := t.TempDir()
	for _, c := range []struct{ dir, path, want string }{
		{"/", dir + "/s", dir + "/s"},
		{dir, "s", "s"},
		{filepath.Dir(dir), "./" + filepath.Base(dir) + "/s", "./" + filepath.Base(dir) + "/s"},
	} {
		if err := os.WriteFile(dir+"/s", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p := start(t, "chdir "+c.dir, "umask 27", "socket unix", "bind "+c.path, "name", "listen")
		call := p.next()
		made := make(chan Beside, 1)
		call.BindBeside("t", func(b Beside) { made <- b })
		b := <-made
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		if b.Made.Mode != 0o750 || call.Made != b.Made {
			t.Errorf("made %o, expected %o", b.Made, call.Made)
		}
		call.Answer(0)
		if call = p.next(); call.Spot.Path != dir+"/s" {
			t.Errorf("listens at %s", call.Spot.Path)
		}
		call.Continue()
		p.wants("chdir ok", "umask ok", "socket ok", "bind ok", "name ok "+c.want, "listen ok")
		if got, err := os.Readlink("/proc/self/root"); got != "/" {
			t.Errorf("the root is %s, %v", got, err)
		}
		var names []string
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			names = append(names, e.Name())
		}
		if len(names) != 2 || names[0] != "s" || names[1] != "t" {
			t.Errorf("files %v", names)
		}
		unix.Unlink(dir + "/t")
	}
}
