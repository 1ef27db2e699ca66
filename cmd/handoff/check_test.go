package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// check finds what run would refuse.
func TestCheckFinds(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("server.js", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text, want string
		code       int
	}{
		{`command = "server.js"`, "", 0},
		{`command = "npm start"`, `command = ["npm", "start"]`, 1},
		{`command = ["no-such-program", "x"]`, "no-such-program", 1},
		{"command = \"server.js\"\nname = \"a/b\"", `invalid name "a/b"`, 2},
		{"command = \"server.js\"\nenv_file = \"none\"", "none", 1},
		{"command = \"server.js\"\nadmin = \"0.0.0.0:9\"", "--admin", 2},
	} {
		if err := os.WriteFile(filepath.Join(dir, "handoff.toml"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs, code := handoff(t, "check")
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d, %q, %q", c.text, code, out, errs)
		}
	}
}

// check says what a crash after a switch would run.
func TestCheckSaysWhatIsNotPinned(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	os.Mkdir("v1", 0o755)
	if err := os.Symlink("v1", "current"); err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(dir, "current")
	if out, errs, code := handoff(t, "check", "--", "sh", "-c", "exec "+current+"/app"); code != 0 || !strings.Contains(out, "note") || !strings.Contains(out, current) {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	if out, errs, code := handoff(t, "check", "--cwd", current, "--", "sh", "-c", "exec ./app"); code != 0 || strings.Contains(out, "note") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
}
