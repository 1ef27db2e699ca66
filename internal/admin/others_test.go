package admin

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where nothing of this user's runs, what runs of others is said, with how to reach it.
func TestElsewhere(t *testing.T) {
	theirs, own, open := t.TempDir(), t.TempDir(), t.TempDir()
	for _, dir := range []string{theirs, own, open} {
		for _, name := range []string{"api", "web"} {
			l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
	}
	os.Chmod(theirs, 0o700)
	os.Chmod(own, 0o700)
	os.Chmod(open, 0o777)                                        // anybody may have put something there
	os.WriteFile(filepath.Join(theirs, "dead.sock"), nil, 0o600) // nobody listens
	os.WriteFile(filepath.Join(theirs, "a\nb.sock"), nil, 0o600) // no name
	for _, name := range ofServices() {                          // no unit's, and closed to others
		os.Mkdir(filepath.Join(theirs, name), 0o700)
		net.Listen("unix", filepath.Join(theirs, name, "x.sock"))
	}
	mine := func(dir string, _ int) bool { return dir == own }
	got := elsewhere([]string{theirs, theirs + "/*", own, open, filepath.Join(own, "none*")}, mine, []string{"status", "web"})
	if want := ": api, web (HANDOFF_RUNTIME_DIR=" + theirs + " handoff status web)"; !strings.HasPrefix(got, "; ") || !strings.HasSuffix(got, want) || strings.Contains(got, own) || strings.Contains(got, open) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := elsewhere([]string{own}, mine, nil); got != "" {
		t.Errorf("%q", got)
	}
}

// Of a folder that everybody may list (/run/handoff), sockets that only root may connect to
// are known, too.
func TestIsBound(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(DirVariable, dir)
	l, err := Listen("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"we", "eb", "other"} {
		if isBound(filepath.Join(dir, name+".sock")) {
			t.Error(name)
		}
	}
	if !isBound(filepath.Join(dir, "web.sock")) {
		t.Error("not found")
	}
	l.Close()
	if isBound(filepath.Join(dir, "web.sock")) {
		t.Error("nobody listens")
	}
}
