package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// proven is what `handoff prove --json` prints.
type proven struct {
	Lost, InsideKilled int64
	Requests           int64
	Verdict            string
	Wants              []string
	Parts              []struct {
		Name        string
		Times       int
		Note, Error string
		New, Kept   struct {
			Requests, Lost int64
			Failed         map[string]int64
		}
	}
	Failures []struct{ Part, Class, Connection, Help string }
}

// prove runs `handoff prove`, and returns what it says, and how it ends.
func prove(t *testing.T, env []string, args ...string) (p proven, code int) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"prove", "--json", "--duration", "1s", "--timeout", "10s", "--rate", fmt.Sprint(times(1000, 100)), "-n", "2"}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), env...)
	var wrong strings.Builder
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatal(err)
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Logf("exit code %d, %s %s", cmd.ProcessState.ExitCode(), p.Verdict, wrong.String())
	return p, cmd.ProcessState.ExitCode()
}

// Programs that do it right: 0 lost in everything that is done to them.
func TestProve(t *testing.T) {
	t.Parallel()
	plain, err := filepath.Abs("../examples/node/plain/server.js")
	if err != nil {
		t.Fatal(err)
	}
	p, code := prove(t, nil, "--reloads", "4", plain)
	if code != 0 || p.Lost != 0 || p.Requests < int64(times(1000, 300)) || len(p.Parts) != 6 {
		t.Errorf("%+v", p)
	}
	for _, part := range p.Parts[1:] {
		if part.Times == 0 || part.Error != "" || part.New.Requests == 0 || part.Kept.Requests == 0 {
			t.Errorf("%+v", part)
		}
	}
	if p.Parts[4].Note != "rejected, as expected" {
		t.Errorf("%+v", p.Parts[4])
	}
}

// The other examples, too.
func TestProveExamples(t *testing.T) {
	t.Parallel()
	modules(t, "express")
	modules(t, "socket.io")
	path, err := filepath.Abs("node_modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"express", "socketio"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, err := filepath.Abs("../examples/node/" + name + "/server.js")
			if err != nil {
				t.Fatal(err)
			}
			if p, code := prove(t, []string{"NODE_PATH=" + path}, "--reloads", "2", "--kill-master", "1", app); code != 0 {
				t.Errorf("exit code %d: %+v", code, p)
			}
		})
	}
}

// A program with a fault is found out, by the class of what it does, and why is said.
func TestProveFindsFaults(t *testing.T) {
	t.Parallel()
	bad := goProgram("bad")
	for _, c := range []struct {
		fault         string
		flags         []string
		part, classes string
		help          string
	}{
		{"reset", []string{"--keep-connections", "off"}, "reload", "reset eof", "keep-alive connection as a request arrived"},
		{"deaf", nil, "reload", "timeout", "--stall-kill"},
		{"stale", []string{"--hold", "1", "--ready-when", "started"}, "reload", "order", "--no-hold"},
		{"silent", nil, "reload", "eof", "was cut off"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			args := append(c.flags, "--reloads", "2", "--scale", "0", "--upgrade", "0", "--kill-master", "0", "--broken-deploy=false", "--timeout", "3s", "--rate", "300", "--address", "127.0.0.1:"+port, "--", bad, c.fault)
			p, code := prove(t, []string{"PORT=" + port}, args...)
			if code != 1 || p.Lost == 0 || !strings.HasPrefix(p.Verdict, "LOST: ") {
				t.Errorf("exit code %d: %+v", code, p)
			}
			found := false
			for _, f := range p.Failures {
				found = found || f.Part == c.part && strings.Contains(c.classes, f.Class) && strings.Contains(f.Help, c.help)
			}
			if !found {
				t.Errorf("no %s in %s: %+v", c.classes, c.part, p.Failures)
			}
			if before := p.Parts[0]; before.New.Lost+before.Kept.Lost > 0 {
				t.Errorf("lost before anything was done: %+v", before)
			}
		})
	}
}

// Lines over TCP; requests from a file; a worker that is killed loses what is inside of
// it, and nothing else.
func TestProveOthers(t *testing.T) {
	t.Parallel()
	only := []string{"--reloads", "1", "--scale", "0", "--upgrade", "0", "--kill-master", "0", "--broken-deploy=false"}
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		p, code := prove(t, nil, append(only, "--tcp", "--drain-timeout", "500ms", "--keepalive-linger", "100ms", "--", goProgram("goecho"))...)
		// Kept connections of a protocol without a goodbye need not outlive their worker.
		if p.Parts[0].New.Lost+p.Parts[0].Kept.Lost > 0 || p.Parts[1].New.Lost > 0 || p.Requests < 300 || (code == 0) != (p.Lost == 0) {
			t.Errorf("%d: %+v", code, p)
		}
	})
	t.Run("requests", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "r.http")
		if err := os.WriteFile(file, []byte("GET /one\n\n###\nPOST /two\nContent-Type: text/plain\n\nbody\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, code := prove(t, nil, append(only, "--request", file, data("server.js"))...)
		if code != 0 || p.Lost != 0 || len(p.Wants) != 2 || p.Wants[1] != "POST /two: 200" {
			t.Errorf("%d: %+v", code, p)
		}
	})
	t.Run("kill-worker", func(t *testing.T) {
		t.Parallel()
		args := append(only, "--reloads", "0", "--kill-worker", "3", "--rate", "0", data("server.js"))
		p, code := prove(t, nil, append([]string{"--allow-inside"}, args...)...)
		if code != 0 || p.Lost == 0 {
			t.Errorf("%d: %+v", code, p)
		}
		if p, code := prove(t, nil, args...); code != 1 || !strings.Contains(p.Verdict, "all of them inside workers killed") {
			t.Errorf("%d: %+v", code, p)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for name, text := range map[string]string{
			"handoff.toml": "command = [\"server.js\"]\nworkers = 3\nenv_file = \"e\"\npid_file = \"p\"\n[hooks]\n\"cluster.started\" = \"touch hooked\"\n",
			"e":            "ANSWER=404\n",
			"p":            "of who runs\n",
			"server.js":    "require('http').createServer((q, r) => { r.statusCode = +process.env.ANSWER; r.end() }).listen(process.env.PORT)",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, code := prove(t, nil, append(only, "-c", filepath.Join(dir, "handoff.toml"))...)
		if code != 0 || p.Lost != 0 || len(p.Wants) != 1 || p.Wants[0] != "GET /: 404" {
			t.Errorf("%d: %+v", code, p)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "p")); string(b) != "of who runs\n" {
			t.Errorf("the pid file is now %q", b)
		}
		if _, err := os.Stat(filepath.Join(dir, "hooked")); err == nil {
			t.Error("a hook ran")
		}
	})
	t.Run("secrets", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		// What runs says what the command lines of all processes above it show.
		app := `const fs = require('fs')
let pid = process.ppid, all = ''
for (let i = 0; i < 3 && pid > 1; i++) { all += fs.readFileSync('/proc/' + pid + '/cmdline', 'utf8'); pid = +fs.readFileSync('/proc/' + pid + '/stat', 'utf8').split(') ')[1].split(' ')[1] }
const ok = process.env.SECRET === 'hunter2' && !all.includes('hunter2')
require('http').createServer((q, r) => { r.statusCode = ok ? 200 : 404; r.end() }).listen(process.env.PORT)`
		for name, text := range map[string]string{"handoff.toml": "command = \"server.js\"\n[env]\nSECRET = \"hunter2\"\n", "server.js": app} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, code := prove(t, nil, append(only, "-c", filepath.Join(dir, "handoff.toml"))...)
		if code != 0 || len(p.Wants) != 1 || p.Wants[0] != "GET /: 200" {
			t.Errorf("%d: %+v", code, p)
		}
	})
	t.Run("ports", func(t *testing.T) {
		t.Parallel()
		p, code := prove(t, nil, "-n", "max", "--reloads", "1", "--ports", freePort(t)+","+freePort(t), data("server.js"))
		if code != 0 || p.Parts[2].Times != 0 || !strings.HasPrefix(p.Parts[2].Note, "skipped") {
			t.Errorf("%d: %+v", code, p)
		}
	})
	t.Run("another tool, defaults", func(t *testing.T) {
		t.Parallel()
		port := freePort(t)
		p, code := prove(t, []string{"PORT=" + port}, "--reloads", "1", "--against", "node -e 'require(\"http\").createServer((q, r) => r.end()).listen(process.env.PORT, \"127.0.0.1\")'", "--address", "127.0.0.1:"+port)
		if code != 0 || len(p.Parts) != 1 {
			t.Errorf("%d: %+v", code, p)
		}
	})
	t.Run("another tool", func(t *testing.T) {
		t.Parallel()
		port := freePort(t)
		p, code := prove(t, []string{"PORT=" + port}, "--reloads", "1", "--against", "node -e 'require(\"http\").createServer((q, r) => r.end()).listen(process.env.PORT, \"127.0.0.1\")'", "--against-reload", "kill -0 $PID", "--against-pause", "100ms", "--address", "127.0.0.1:"+port)
		if code != 0 || p.Lost != 0 || p.Parts[1].Times != 1 {
			t.Errorf("%d: %+v", code, p)
		}
	})
}
