package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"handoff/internal/linux"
)

// tree is a folder with a program, a script, an environment file, and a link.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"v1/app": "#!/bin/sh\n", "v1/main.js": "", "v1/.env": "COLOR=blue\n", "v1/notes": "",
		"v2/app": "#!/bin/sh\n", "v2/main.js": "", "v2/.env": "COLOR=red\nMORE='a b'\n", "bad/.env": "COLOR=blue\nhunter2 is the word\n", "bad/app": ""} {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "app") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	point(t, dir, "v1")
	return dir
}

// point switches the link, as a deploy does.
func point(t *testing.T, dir, to string) {
	t.Helper()
	next := filepath.Join(dir, "next")
	if err := os.Symlink(to, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
}

// A Launch stays what it is when the link is switched; the next one follows.
func TestResolveFollowsALink(t *testing.T) {
	dir := tree(t)
	c := Command{Args: []string{"./app", "main.js"}, Script: 1, Dir: filepath.Join(dir, "current"), Env: []string{"PATH=/bin", "COLOR=none", "PWD=/"}, EnvFile: ".env", Set: []string{"SET=1"}}
	first, err := c.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	point(t, dir, "v2")
	second, err := c.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range map[*Launch]Launch{
		first: {Path: dir + "/v1/app", Args: []string{"./app", dir + "/v1/main.js"}, Dir: dir + "/v1",
			Env: []string{"PATH=/bin", "COLOR=blue", "SET=1", "PWD=" + dir + "/v1"}},
		second: {Path: dir + "/v2/app", Args: []string{"./app", dir + "/v2/main.js"}, Dir: dir + "/v2",
			Env: []string{"PATH=/bin", "COLOR=red", "MORE=a b", "SET=1", "PWD=" + dir + "/v2"}},
	} {
		if l.Path != want.Path || !slices.Equal(l.Args, want.Args) || l.Dir != want.Dir || !slices.Equal(l.Env, want.Env) {
			t.Errorf("%+v, want %+v", *l, want)
		}
	}
	if c.Args[1] != "main.js" {
		t.Error("the command has changed")
	}
	other := first.With("COLOR", "green")
	if linux.Lookup(other.Env, "COLOR") != "green" || linux.Lookup(first.Env, "COLOR") != "blue" {
		t.Errorf("%q made of %q", other.Env, first.Env)
	}
}

func TestResolveErrors(t *testing.T) {
	dir := tree(t)
	v1 := filepath.Join(dir, "v1")
	for _, c := range []struct {
		what string
		c    Command
		want string
	}{
		{"no directory", Command{Args: []string{"app"}, Dir: dir + "/v3"}, "cannot use the working directory: " + dir + "/v3: no such file or directory"},
		{"no program", Command{Args: []string{"./missing"}, Dir: v1}, "cannot run " + v1 + "/missing: no such file or directory"},
		{"not in PATH", Command{Args: []string{"app"}, Dir: v1, Env: []string{"PATH=/nowhere"}}, "cannot run app: executable file not found in $PATH"},
		{"not executable", Command{Args: []string{"./notes"}, Dir: v1}, "cannot run " + v1 + "/notes: not an executable file"},
		{"a folder", Command{Args: []string{dir}, Dir: v1}, "cannot run " + dir + ": not an executable file"},
		{"no script", Command{Args: []string{"./app", "missing.js"}, Script: 1, Dir: v1}, "cannot run missing.js: " + v1 + "/missing.js: no such file or directory"},
		{"no environment file", Command{Args: []string{"./app"}, Dir: v1, EnvFile: "missing.env"}, "cannot read the environment file " + v1 + "/missing.env: no such file or directory"},
		{"a bad line", Command{Args: []string{"./app"}, Dir: dir + "/bad", EnvFile: ".env"}, "cannot read the environment file " + dir + "/bad/.env: not in the form KEY=VALUE"},
	} {
		l, err := c.c.Resolve()
		if err == nil || l != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %+v, %v", c.what, l, err)
			continue
		}
		if err.Error() != c.want {
			t.Errorf("%s: %q, want %q", c.what, err, c.want)
		}
	}
}

// A program is looked up where the worker would: in its directory, with its PATH. It
// keeps the name that it was called by.
func TestLookup(t *testing.T) {
	dir := tree(t)
	os.Symlink("v1/app", filepath.Join(dir, "tool"))
	for _, path := range []string{dir, "../", "/nowhere:" + dir} {
		c := Command{Args: []string{"tool"}, Dir: dir + "/v1", Set: []string{"PATH=" + path}}
		l, err := c.Resolve()
		if err != nil || l.Path != dir+"/v1/app" || l.Args[0] != "tool" {
			t.Errorf("PATH=%s: %+v, %v", path, l, err)
		}
	}
}

// What speaks to handoff, or to who has started it, goes no further.
func TestEnviron(t *testing.T) {
	env := []string{"A=1", "NOTIFY_SOCKET=/run/x", "NOTIFY_SOCKETS=2", "LISTEN_FDS=3", "NODE_CHANNEL_FD=3", "HANDOFF_KEEPER=1", "HANDOFF_CUSTOM=1", "WORKER_ID=1", "TABLEFLIP_HAS_PARENT_7DIU3=yes", "ODD"}
	before := slices.Clone(env)
	if got, want := Environ(env), []string{"A=1", "NOTIFY_SOCKETS=2", "HANDOFF_CUSTOM=1", "ODD"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !slices.Equal(env, before) {
		t.Error("what it was given has changed")
	}
}

// Each form in which a command names a path through the switched link is pinned when the
// generation begins, and a text is said to be none of them.
func TestPathsThroughALinkArePinned(t *testing.T) {
	dir := tree(t)
	current, v1 := dir+"/current", dir+"/v1"
	for _, name := range []string{"v1/lib/a.py", "v1/lib/b.jar", "v2/lib/a.py", "v2/lib/b.jar", "plain/x", "..42/app.json"} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		os.WriteFile(filepath.Join(dir, name), nil, 0o755)
	}
	for link, to := range map[string]string{"app.jar": "v1/lib/b.jar", "v1/cert.pem": "../plain/x", "..data": "..42", "app.json": "..data/app.json"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ said, want string }{
		{current + "/lib/a.py", v1 + "/lib/a.py"},
		{current, v1},
		{current + "/", v1 + "/"},
		{"current/lib/a.py", v1 + "/lib/a.py"},
		{current + "/../plain/x", dir + "/plain/x"},
		{current + "/not/yet.pid", v1 + "/not/yet.pid"},
		{"--config=" + current + "/lib/a.py", "--config=" + v1 + "/lib/a.py"},
		{"-I" + current + "/lib", "-I" + v1 + "/lib"},
		{"-Dhome=" + current + "/lib:/nowhere", "-Dhome=" + v1 + "/lib:/nowhere"},
		{current + "/lib/a.py:" + current + "/lib/b.jar:x", v1 + "/lib/a.py:" + v1 + "/lib/b.jar:x"},
		{dir + "/app.jar", v1 + "/lib/b.jar"},
		// Left alone:
		{"current", "current"}, // any word
		{"plain/x", "plain/x"},
		{dir + "/plain/../plain/x", dir + "/plain/../plain/x"},
		{current + "/cert.pem", v1 + "/cert.pem"}, // the link is renewed
		{dir + "/app.json", dir + "/app.json"},    // Kubernetes removes what was before
		{dir + "/..data/app.json", dir + "/..data/app.json"},
		{"/proc/self/cwd/x", "/proc/self/cwd/x"},
		{"/dev/fd/2", "/dev/fd/2"},
		{"http:/" + current, "http:/" + current},
		{"", ""},
	} {
		cmd := Command{Args: []string{current + "/app", c.said}, Dir: dir, Env: []string{"PATH=/bin"}}
		l, err := cmd.Resolve()
		if err != nil || l.Args[1] != c.want || l.Args[0] != v1+"/app" || len(l.Unpinned) > 0 {
			t.Errorf("%q: %+v, %v; want %q", c.said, l, err, c.want)
		}
	}
	// The environment, where it goes the same way; a text is not.
	cmd := Command{Args: []string{"sh", "-c", "exec python3 '" + current + "/lib/a.py'; echo done"}, Dir: dir, Env: []string{"PATH=/bin"},
		Set: []string{"NODE_PATH=" + current + "/lib:/x", "HOME=" + current}}
	l, err := cmd.Resolve()
	if err != nil || !slices.Equal(l.Args, cmd.Args) || !slices.Equal(l.Unpinned, []string{current}) || linux.Lookup(l.Env, "NODE_PATH") != current+"/lib:/x" {
		t.Errorf("%+v, %v", l, err)
	}
	cmd.Args, cmd.Dir = []string{"sh", "-c", "exec python3 lib/a.py"}, current
	l, err = cmd.Resolve()
	if err != nil || len(l.Unpinned) > 0 || linux.Lookup(l.Env, "NODE_PATH") != v1+"/lib:/x" || linux.Lookup(l.Env, "HOME") != current {
		t.Errorf("%+v, %v", l, err)
	}
	if said := Unpinned(current); !strings.Contains(said, current) || !strings.Contains(said, "--cwd") {
		t.Error(said)
	}
}

// Who may write to the program's folder has root read no file by a link that this user
// could not read; a deployer's link to a file of theirs is followed.
func TestEnvFileOverALinkOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "env")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	at := func(name string) string { return filepath.Join(dir, name) }
	os.Mkdir(at("secret"), 0o700)
	os.Mkdir(at("shared"), 0o755)
	for path, owner := range map[string]int{"secret/env": 0, "shared/env": 65534, "own": 0} {
		os.WriteFile(at(path), []byte("KEY=value\n"), 0o600)
		os.Chown(at(path), owner, owner)
	}
	for link, c := range map[string]struct {
		to    string
		owner int
	}{"theirs": {"shared/env", 65534}, "steals": {"secret/env", 65534}, "folder": {"secret", 65534}, "roots": {"secret/env", 0}, "unknown": {"shared/env", 4000000}} {
		os.Symlink(c.to, at(link))
		os.Lchown(at(link), c.owner, c.owner)
	}
	for name, want := range map[string]string{"own": "", "theirs": "", "roots": "", "steals": "steals: permission denied", "folder/env": "folder/env: permission denied", "unknown": "unknown: unknown is a link of user 4000000, which root does not follow"} {
		c := Command{Args: []string{"/bin/true"}, Dir: dir, EnvFile: name}
		l, err := c.Resolve()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		} else if err == nil && linux.Lookup(l.Env, "KEY") != "value" {
			t.Errorf("%s: %q", name, l.Env)
		}
	}
}
