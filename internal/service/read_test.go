package service

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// As root, what another user can write has no say; what the workers' user can write, in
// what is the workers' own.
func TestFilesOfOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const nobody = 65534
	base, err := os.MkdirTemp("", "others")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	os.Chmod(base, 0o755)
	write := func(name, text string) string {
		path := filepath.Join(base, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chown(path, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("app.js", "")
	write("secret", "A=1")
	for _, c := range []struct{ line, text, want string }{ // want: "" nothing is wrong
		{"", "workers = 2", "belongs to user"},
		{"--user daemon", "workers = 2", "belongs to user"},
		{"--user nobody", "workers = 2\nbalance = \"sticky\"\n[env]\nA = \"1\"", ""},
		{"--user nobody", "user = \"root\"", "handoff.toml:1:1: user: the workers' user can write this file"},
		{"--user nobody", "[hooks]\n\"worker.crashed\" = \"id\"", "chown root"},
		{"--user nobody", "listen = [\"80\"]", "or say it on the command line (--listen)"},
		{"--user nobody", "allow = [\"80\"]", "allow: the workers' user"},
		{"--user nobody", "log_file = \"/etc/x\"", "log_file: the workers' user"},
		{"--user nobody", "worker = 1", `did you mean "workers"?`},
		{"--trust-config", "pid_file = \"x\"", ""},
	} {
		path := write("handoff.toml", c.text)
		r, err := source(t, base, nil, false, append(strings.Fields(c.line), "-c", path, "app.js")...).Resolve()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %q: %v, want %q", c.line, c.text, err, c.want)
		}
		if err == nil && r.OfWorkers != (c.line == "--user nobody") {
			t.Errorf("%s: %v", c.line, r.OfWorkers)
		}
	}
	// An environment file that it names is read with that user's rights, now and by the
	// next master.
	path := write("handoff.toml", "env_file = \"/etc/shadow\"")
	line := []string{"--user", "nobody", "-c", path, "app.js"}
	first, err := source(t, base, nil, false, line...).Resolve()
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []*Program{nil, &first.Program} {
		s := source(t, base, before, false, line...)
		r, err := s.Resolve()
		if err != nil {
			t.Fatal(err)
		}
		live, err := Live(s.Run, r.Program, World{})
		if err != nil || live.Command.EnvUser == nil || live.Command.EnvUser.UID != nobody {
			t.Fatal(live.Command.EnvUser, err)
		}
		if _, err := live.Command.Resolve(); err == nil || !strings.Contains(err.Error(), "/etc/shadow: permission denied") {
			t.Error(err)
		}
	}
}

// PM2's file is a program: it runs as whoever can write it.
func TestEcosystemFileOfTheWorkersUser(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and node")
	}
	base, err := os.MkdirTemp("", "others")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	path := filepath.Join(base, "ecosystem.config.js")
	text := "module.exports = { apps: [{ script: __dirname + '/app.js', name: 'by-' + process.getuid() }] }"
	for _, err := range []error{os.WriteFile(path, []byte(text), 0o644), os.WriteFile(filepath.Join(base, "app.js"), nil, 0o644), os.Chmod(base, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	name := func(line ...string) string {
		r, err := source(t, base, nil, false, append(line, path)...).Resolve()
		if err != nil {
			return err.Error()
		}
		return string(r.Name)
	}
	if got := name("--user", "nobody"); got != "by-0" { // it is root's, and so is its folder
		t.Error(got)
	}
	os.Chown(base, 65534, 65534)
	if got := name("--user", "nobody"); got != "by-65534" {
		t.Error(got)
	}
	if got := name(); !strings.Contains(got, "belongs to user") {
		t.Error(got)
	}
}
