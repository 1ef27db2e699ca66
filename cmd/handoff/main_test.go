package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/bindintercept"
	"handoff/internal/logging"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bindintercept.Word { // doctor tries it
		os.Exit(bindintercept.Trampoline(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == masterWord { // a command that should have been refused starts a service
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// handoff runs a command line in this process.
func handoff(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	read := func(to **os.File) func() string {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		was, text := *to, make(chan string)
		*to = w
		go func() { // ends with w
			b, _ := io.ReadAll(r)
			text <- string(b)
		}()
		return func() string {
			*to = was
			w.Close()
			defer r.Close()
			return <-text
		}
	}
	was := os.Args
	os.Args = append([]string{"handoff"}, args...)
	outs, errors := read(&os.Stdout), read(&os.Stderr)
	code = run(args, false)
	os.Args = was
	return outs(), errors(), code
}

// commands are all, with those of rackadmin.
func commands() map[string]*cobra.Command {
	code, all := 0, map[string]*cobra.Command{}
	for _, root := range []*cobra.Command{rootCommand(&code, false), rackadmin()} {
		for _, c := range root.Commands() {
			all[c.CommandPath()] = c
		}
	}
	return all
}

// Every command says what it does, with an example, and each of its flags takes its own
// default, or says what it wants.
func TestCommands(t *testing.T) {
	all := commands()
	if len(all) < 35 {
		t.Fatalf("%d commands", len(all))
	}
	for path, c := range all {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q", path, c.Short)
		}
		if name := c.Name(); c.Example == "" && !c.Hidden && !slices.Contains([]string{"version", "hooks", "completion"}, name) {
			t.Errorf("%s has no example", path)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: %q", path, f.Name, f.Usage)
			}
			var want string
			switch f.Value.Type() {
			case "bool":
				want = "parse"
			case "int", "float64", "duration", "func", "word":
				want = "want"
			default:
				return // takes any text
			}
			if err := c.ParseFlags([]string{"--" + f.Name + "=nonsense"}); err == nil || !strings.Contains(err.Error(), f.Name) {
				t.Errorf("%s --%s=nonsense: %v, %s", path, f.Name, err, want)
			}
			if f.Value.Type() == "func" || f.DefValue == "" {
				return
			}
			if err := c.ParseFlags([]string{"--" + f.Name + "=" + f.DefValue}); err != nil {
				t.Errorf("%s --%s: its own default: %v", path, f.Name, err)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for path, c := range commands() {
		if strings.HasPrefix(path, "rackadmin ") || c.Hidden {
			continue
		}
		out, errs, code := handoff(t, c.Name(), "--help")
		if code != 0 || errs != "" || !strings.Contains(out, firstLine(c.Long)) {
			t.Errorf("%s --help: %d, %q, %q", path, code, errs, out)
		}
		again, _, code := handoff(t, "help", c.Name())
		if code != 0 || !strings.Contains(again, firstLine(c.Long)) {
			t.Errorf("help %s: %d, %q", path, code, again)
		}
	}
	out, _, code := handoff(t, "--help")
	if lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); code != 0 || len(lines) > 24 || slices.ContainsFunc(lines, func(l string) bool { return len(l) > 80 }) {
		t.Errorf("%d lines, or one of more than 80 columns:\n%s", len(lines), out)
	}
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

// What is wrong is one line, and an exit code by what kind of mistake it is.
func TestUsage(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", t.TempDir())
	t.Setenv("NOTIFY_SOCKET", "")
	t.Chdir(t.TempDir())
	os.WriteFile("app.js", nil, 0o644)
	for line, want := range map[string]string{
		"server.js":                     "2 handoff: unknown command \"server.js\"; `handoff --help` lists them (did you mean `handoff run server.js`?)",
		"statsu":                        "2 handoff: unknown command \"statsu\"; did you mean `handoff status`?",
		"start app.js":                  "2 handoff: unknown command \"start\": `handoff run` starts",
		"describe web":                  "2 handoff: unknown command \"describe\": `handoff status NAME`",
		"monit":                         "2 handoff: unknown command \"monit\": `handoff top`",
		"delete web":                    "2 handoff: unknown command \"delete\": `handoff stop NAME`",
		"convert ecosystem.config.js":   "2 handoff: unknown command \"convert\": `handoff import pm2`",
		"flush":                         "2 handoff: unknown command \"flush\": handoff keeps no log",
		"restart web":                   "2 handoff: cannot restart \"web\": want the number of a slot, see `handoff status`; `handoff reload web` replaces",
		"help nonsense":                 "2 handoff: no help for \"nonsense\"",
		"run":                           "2 handoff: nothing to run: give a program",
		"run --nonsense":                "2 handoff: unknown flag: --nonsense; `handoff run --help` lists the options",
		"run no.js":                     "1 handoff: cannot run no.js: no such file",
		"run --name ../x app.js":        "2 handoff: --name: invalid name",
		"run --admin 0.0.0.0:80 app.js": "2 handoff: --admin: ",
		"run --admin nowhere app.js":    "2 handoff: --admin: ",
		"run --admin-token-file no --admin 127.0.0.1:9 app.js": "2 handoff: --admin-token-file: ",
		"check -n x app.js":                 "2 handoff: invalid number of workers",
		"check no.js":                       "1 handoff: cannot run no.js",
		"check --env-file no app.js":        "1 handoff: cannot read the environment file",
		"status":                            "3 handoff: ",
		"reload web":                        "3 handoff: ",
		"stop web":                          "3 handoff: ",
		"config":                            "3 handoff: ",
		"events":                            "3 handoff: ",
		"top":                               "3 handoff: ",
		"scale many":                        "2 handoff: cannot scale to \"many\": want a number of workers",
		"scale -1":                          "3 handoff: ",
		"scale":                             "2 handoff: accepts between 1 and 2 arg(s)",
		"restart first":                     "2 handoff: cannot restart \"first\": want the number of a slot",
		"wait --timeout 1ms":                "3 handoff: not ready within 1ms: ",
		"wait ../x":                         "2 handoff: invalid name",
		"import forever":                    "2 handoff: cannot import from \"forever\": only pm2 is supported",
		"import pm2":                        "1 handoff: no ecosystem.config.js in this directory",
		"import pm2 no.config.js":           "1 handoff: cannot read PM2's file",
		"notify":                            "2 handoff: nothing to send: give KEY=VALUE",
		"notify READY":                      "2 handoff: cannot send \"READY\": want KEY=VALUE",
		"notify READY=1":                    "1 handoff: NOTIFY_SOCKET is not set",
		"head":                              "1 handoff: ",
		"versions no":                       "1 handoff: no is not a valid deployment",
		"deploy --run x --link-from y":      "1 handoff: ",
		"prove --rate -1 app.js":            "2 handoff: --rate must not be negative",
		"prove --clients 0 app.js":          "2 handoff: --clients must be at least 1",
		"prove --duration 0 app.js":         "2 handoff: --duration, --timeout and --wait must be greater than 0",
		"prove --reloads -1 app.js":         "2 handoff: --reloads must not be negative",
		"prove --tcp --request x app.js":    "2 handoff: --tcp and --request exclude each other",
		"prove --against x":                 "2 handoff: --against requires --address",
		"prove --against x app.js":          "2 handoff: --against is the whole command line",
		"prove --against x --address 1":     "2 handoff: --address 1: want HOST:PORT",
		"prove --against x --scale 1":       "2 handoff: --scale is for handoff only",
		"prove --against x --kill-master 2": "2 handoff: --kill-master must be at most 1 with --against",
		"prove --against-reload x app.js":   "2 handoff: --against-reload requires --against",
		"prove --request no.http app.js":    "1 handoff: --request: ",
		"prove no.js":                       "1 handoff: cannot run no.js",
	} {
		out, errs, code := handoff(t, strings.Fields(line)...)
		if got := fmt.Sprintf("%d %s", code, errs); !strings.HasPrefix(got, want) || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: %q, %q; want %q", line, got, out, want)
		}
	}
}

// fake is a service that does at once what it is told.
type fake struct {
	admin.Control
	status  api.Status
	process *os.Process // that ends at a stop; nil: there is none
	refuse  error
}

func (f *fake) Status(context.Context) (api.Status, error) { return f.status, nil }

func (f *fake) Reload(context.Context) (int, error) {
	n := f.status.Wanted + 1
	r := &api.ReloadStatus{Generation: n, Began: time.Now(), Outcome: api.OutcomeServed, Seconds: 1.5}
	if f.status.Wanted = n; f.refuse != nil {
		r.Outcome, r.Reason, r.Stderr = "failed", f.refuse.Error(), []string{"Error: no database"}
	} else {
		f.status.Generation = n
	}
	f.status.Reload = r
	return n, nil
}

func (f *fake) Upgrade(context.Context) error { return f.refuse }

func (f *fake) Scale(_ context.Context, n int, relative bool) (int, error) {
	if relative {
		n += f.status.Slots
	}
	if f.refuse != nil {
		f.status.Failed = &api.ChangeStatus{Change: api.ChangeScale, Workers: n, Slot: n - 1, Reason: f.refuse.Error(), At: time.Now()}
		return n, nil
	}
	f.status.Slots, f.status.Ready = n, n
	return n, nil
}

func (f *fake) Stop(context.Context, bool) error { return f.process.Kill() }

func (f *fake) Restart(_ context.Context, slot int) (int, error) {
	w := &f.status.Workers[slot]
	old := w.Worker
	w.Worker, w.PID, w.Steered = old+10, 4711, true
	return old, nil
}

// serves starts a fake service of a name.
func serves(t *testing.T, name string) *fake {
	t.Helper()
	started := time.Now().Add(-90*time.Minute - 30*time.Second)
	ready := started.Add(time.Second)
	f := &fake{status: api.Status{Schema: 1, Name: name, State: "serving", PID: os.Getpid(), Slots: 2, Ready: 2, Generation: 1, Wanted: 1, Started: started,
		Addresses: []api.AddressStatus{{Address: "127.0.0.1:3000", Balance: "even"}},
		Workers: []api.WorkerStatus{{Slot: 0, Worker: 1, PID: 100, Generation: 1, Phase: "serving", Ready: &ready, RSS: 50 << 20, CPU: 1.234, Status: "warm"},
			{Slot: 1, Worker: 2, PID: 101, Generation: 1, Phase: "starting", Reloading: true}}}}
	l, err := admin.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	about := admin.About{Events: &logging.Events{}, Output: &logging.Events{}, Config: func() any { return map[string]any{"schema": 1, "workers": "2", "env": []string{"SECRET"}} }, Log: slog.New(slog.DiscardHandler)}
	stamp := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local).Format(time.RFC3339Nano)
	fmt.Fprintf(about.Events, `{"time":%q,"level":"WARN","msg":"Worker crashed","event":"worker.crashed","slot":1,"pid":101,"generation":2,"reason":"exit code 1","stderr":"a\nb"}`+"\n", stamp)
	for i, text := range []string{"one", "two", "three"} {
		fmt.Fprintf(about.Output, `{"time":%q,"name":%q,"slot":%d,"line":%q}`+"\n", stamp, name, i%2, text)
	}
	stop := admin.Serve(l, f, about)
	t.Cleanup(func() { stop(false) })
	return f
}

func TestAgainstAService(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", t.TempDir())
	f := serves(t, "web")
	f.process = exec0(t)
	for _, c := range []struct {
		line, want string // of stdout, or of stderr where the code is not 0
		code       int
	}{
		{"ls", "NAME  STATE    READY  GENERATION  PID", 0},
		{"status", "web: serving, 2 of 2 slots ready, generation 1, pid", 0},
		{"status web", "listens on 127.0.0.1:3000 (even)\n\nSLOT  PID  GEN  PHASE     READY   QUEUE  RESTARTS  CPU  MEMORY   STATUS\n0     100  1    serving   1h 30m  0      0         0%   50.0 MB  warm\n1     101  1    starting  -       0      0         0%   0.0 MB   (reloading)", 0},
		{"status --json", `"state": "serving"`, 0},
		{"config", "env = [\"SECRET\"]\nworkers = \"2\"\n", 0},
		{"config --json", `"workers": "2"`, 0},
		{"events", "2026-01-02 03:04:05 WARN  Worker crashed  slot=1 pid=101 generation=2 reason=\"exit code 1\"\n    a\n    b\n", 0},
		{"events --json -n 1", `"event":"worker.crashed"`, 0},
		{"logs", "web.0 | one\nweb.1 | two\nweb.0 | three\n", 0},
		{"logs --slot 0 -n 1", "web.0 | three\n", 0},
		{"logs --slot 1 --json", `"line":"two"`, 0},
		{"wait", "web: 2 of 2 slots ready\n", 0},
		{"wait --json --ready web", `"name": "web"`, 0},
		{"reload", "web: generation 2 serves, after 1.5s\n", 0},
		{"reload --json", `"outcome": "served"`, 0},
		{"reload --no-wait", "web: generation 4 starts\n", 0},
		{"reload --no-wait --json", `"outcome": "running"`, 0},
		{"upgrade", "web: upgraded\n", 0},
		{"upgrade --json", `"upgraded": true`, 0},
		{"scale 4", "web: 4 workers\n", 0},
		{"scale web +2", "web: 6 workers\n", 0},
		{"scale -2 web", "web: 4 workers\n", 0},
		{"scale web 6", "web: 6 workers\n", 0},
		{"restart web 0 --no-wait", "web: replacing slot 0\n", 0},
		{"--version", "handoff dev (unknown)\n", 0},
		{"-v", "handoff dev (unknown)\n", 0},
		{"list", "NAME  STATE", 0},
		{"scale -5 --json", `"workers": 1`, 0},
		{"restart 0", "web: slot 0 serves, pid 4711\n", 0},
		{"restart 1 --no-wait", "web: replacing slot 1\n", 0},
		{"restart 0 --json", `"pid": 4711`, 0},
		{"top", "handoff top needs a terminal", 1},
		{"status nobody", "handoff: ", 3},
	} {
		out, errs, code := handoff(t, strings.Fields(c.line)...)
		got := out
		if c.code != 0 {
			got = errs
		}
		if code != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s: %d, %q, %q; want %d, %q", c.line, code, out, errs, c.code, c.want)
		}
	}

	f.refuse = errors.New("ready timeout")
	f.status.Ready-- // one waits in its backoff
	want := fmt.Sprintf("web: not scaled to %d workers: slot %d: ready timeout; %d keep serving\n", f.status.Slots+1, f.status.Slots, f.status.Ready)
	if out, errs, code := handoff(t, "scale", "+1"); code != 1 || !strings.HasSuffix(errs, want) {
		t.Errorf("%d, %q, %q, want %q", code, out, errs, want)
	}
	f.status.Ready++
	if out, errs, code := handoff(t, "reload"); code != 1 || !strings.Contains(errs, "  Error: no database\n") || !strings.Contains(errs, "failed after 1.5s: ready timeout") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	if _, errs, code := handoff(t, "upgrade"); code != 1 || !strings.Contains(errs, "ready timeout") {
		t.Errorf("%d, %q", code, errs)
	}
	f.status.Ready = 0
	if _, _, code := handoff(t, "status"); code != 1 {
		t.Errorf("%d", code)
	}
	serves(t, "api")
	if _, errs, code := handoff(t, "status"); code != 1 || !strings.Contains(errs, "api") {
		t.Errorf("%d, %q", code, errs)
	}
	f.status.PID = f.process.Pid
	if out, _, code := handoff(t, "stop", "web", "--timeout", "20s"); code != 0 || out != "web: stopped\n" {
		t.Errorf("%d, %q", code, out)
	}
}

// exec0 starts a process that goes on until it is killed.
func exec0(t *testing.T) *os.Process {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat")
	cmd.Stdin = read
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read.Close()
	t.Cleanup(func() {
		write.Close() // it ends
		cmd.Wait()
	})
	return cmd.Process
}

func TestInitCheckImport(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("server.js", nil, 0o644)
	os.WriteFile("ecosystem.json", []byte(`{"apps": [{"script": "server.js", "mystery": 1}]}`), 0o644)
	for _, c := range []struct {
		line, want string
		code       int
	}{
		{"init", "Wrote handoff.toml; `handoff check` validates it, `handoff run` runs it\n", 0},
		{"init", "handoff: handoff.toml already exists (use --force to overwrite)\n", 1},
		{"init --force -- node server.js", "Wrote handoff.toml", 0},
		{"init --schema", `"$schema"`, 0},
		{"check -n 3", "handoff.toml: OK\n  runs      node server.js\n", 0},
		{"check -n 3", "  workers   3, by the node contract\n", 0},
		{"check --contract bind --drain-signal QUIT", "  drain     by SIGQUIT (--drain-signal)\n", 0},
		{"check --json", `"contract": "node"`, 0},
		{"import pm2", "# From ecosystem.json. handoff run runs it, handoff check validates it.\n# of PM2's keys used: script\n# ignored: mystery (unknown)\n# fork mode: ready when started, as in PM2", 0},
		{"systemd --systemd-version 255 --user web:www -n 2", " -n 2\n", 0},
		{"systemd --systemd-version 255 --user web:www", "\nUser=web\nGroup=www\nType=notify-reload\n", 0},
		{"systemd --systemd-version 252", "Type=notify\nExecReload=/bin/kill -USR2 $MAINPID\n", 0},
		{"version", "handoff dev (unknown)\n", 0},
		{"version --json", `"version": "dev"`, 0},
	} {
		out, errs, code := handoff(t, strings.Fields(c.line)...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: %d, %q, %q; want %d, %q", c.line, code, out, errs, c.code, c.want)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", t.TempDir())
	t.Setenv("SUDO_USER", "me")
	dir := t.TempDir()
	web, src := filepath.Join(dir, "web"), filepath.Join(dir, "src")
	os.MkdirAll(filepath.Join(src, "lib"), 0o755)
	os.WriteFile(filepath.Join(src, "server.js"), nil, 0o644)
	t.Chdir(src)
	for _, c := range []struct {
		line, want string
		code       int
	}{
		{"setup " + web + " --json", `"project": "` + web + `"`, 0},
		{"deploy " + web + " v1", "v1\n", 0},
		{"deploy " + web + " v2 --json", `"version": "v2"`, 0},
		{"deploy " + web + " v3 --no-switch --run touch\u00a0built", "v3\n", 0},
		{"deploy " + web + " v4 --run false", "not registered as a version: --run", 1},
		{"deploy " + web + " v4 --run x --link-from v1", "--link-from and --run exclude each other", 1},
		{"deploy " + web + " v1", "already exists (use --force to swap it for a new copy)", 1},
		{"head " + web, "v2\n", 0},
		{"head " + web + " --json", `"head": "v2"`, 0},
		{"versions " + web, "v1\nv2\nv3\n", 0},
		{"versions " + web + " --json", `"previous": true`, 0},
		{"rollback " + web, "v1\n", 0},
		{"rollback " + web, "the history has no version 1 steps back", 1},
		{"switch " + web + " #2", "v3\n", 0},
		{"checkout " + web + " nope", "Couldn't find the target version, nope", 1},
		{"switch " + web, "no version given", 1},
		{"register " + web + " nope", "There is no deployed project", 1},
		{"register " + web + " v3", "v3\n", 0},
		{"clean " + web + " v2 --dry-run", "", 0},
		{"clean " + web + " --keep 1 --json", `"removed": [`, 0},
		{"clean " + web + " nope", "nope is not a version of", 1},
	} {
		words := strings.Fields(c.line)
		if i := strings.Index(c.line, "touch"); i > 0 {
			words = append(strings.Fields(c.line[:i]), "touch built")
		}
		out, errs, code := handoff(t, words...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: %d, %q, %q; want %d, %q", c.line, code, out, errs, c.code, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(web, "v3", "built")); err != nil {
		t.Error(err)
	}
}

func TestDoctor(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	t.Setenv("HANDOFF_STATE_DIR", filepath.Join(t.TempDir(), "state"))
	out, errs, code := handoff(t, "doctor")
	if code != 0 || errs != "" || !strings.Contains(out, "kernel                 Linux ") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	out, _, _ = handoff(t, "doctor", "--json")
	var all struct {
		Schema   int
		Findings []struct{ Name, State, What string }
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || all.Schema != 1 || len(all.Findings) < 14 || all.Findings[0].Name != "kernel" || all.Findings[0].State == "" {
		t.Errorf("%v, %+v", err, all)
	}
}

// RackMan's names take RackMan's command lines.
func TestRackman(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		dir:                       "run --log rackman " + dir,
		dir + " v2":               "run --log rackman --rack-version=v2 " + dir,
		"--log-level=warn " + dir: "run --log rackman --log-level=warn " + dir,
	} {
		if got, code := rackmanArgs(strings.Fields(line)); strings.Join(got, " ") != want || code != -1 {
			t.Errorf("%s: %q, %d", line, got, code)
		}
	}
	var out, errs bytes.Buffer
	say := rackmanLines(&out, &errs, 42, false)
	for _, line := range []string{`{"event":"worker.ready","worker":1,"port":80}`, `{"event":"cluster.started"}`, `{"event":"cluster.changed","file":"a.js"}`, `{"event":"cluster.reloading"}`,
		`{"event":"worker.shutdown","worker":1}`, `{"event":"worker.crashed","worker":2}`, `{"event":"worker.ready","worker":3,"port":81}`, `{"event":"worker.crashed","worker":3}`,
		`{"event":"worker.terminated","worker":4}`, `{"event":"cluster.failed","msg":"why"}`, `{"event":"cluster.shutdown"}`, `{"event":"cluster.stopped"}`, `nonsense`} {
		say([]byte(line))
	}
	if out.String() != `Worker 1 Now Listening on Port 80
RackMan Cluster Ready
You can reload the server manually using `+"`kill -SIGHUP 42` or `kill -SIGUSR2 42`"+`
 - a.js was changed
Reloading Workers
Worker 1 Has Shutdown
Worker 3 Now Listening on Port 81
Worker 3 Has Shutdown
RackMan Cluster Terminating
All Workers Shutdown
` || errs.String() != "Worker 2 Failed To Start Successfully\nWorker 4 Shutdown Timeout Expired - Killing\nwhy\n" {
		t.Errorf("%s%s", out.String(), errs.String())
	}
	// What was heard before the end is said by then; a reader that is stuck keeps nobody.
	n := 0
	hear, end := apart(func([]byte) { n++ })
	for range 100 {
		hear([]byte("x"))
	}
	if end(20 * time.Second); n != 100 {
		t.Errorf("%d of 100", n)
	}
	stuck := make(chan struct{})
	defer close(stuck)
	hear, end = apart(func([]byte) { <-stuck })
	for range 2000 {
		hear([]byte("x"))
	}
	end(time.Millisecond)
}

func TestUnitWords(t *testing.T) {
	got := unitWords([]string{"/usr/bin/handoff", "run", "", "a b", "100%", "$HOME", `back\slash`, `"`, "it's"})
	if want := `/usr/bin/handoff run "" "a b" 100%% $$HOME back\\slash "\"" "it's"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	words := without([]string{"--user", "web", "-n", "2", "--cwd=/x", "--name", "n"}, "--user", "--cwd", "--name")
	if strings.Join(words, " ") != "-n 2" {
		t.Errorf("%q", words)
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m 1s", 25 * time.Hour: "1d 1h", 2*time.Hour + time.Minute: "2h 1m"} {
		if got := age(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	if got := numbers([]string{"scale", "-1", "web"}); got[1] != notAFlag+"-1" || got[2] != "web" {
		t.Errorf("%q", got)
	}
	var b bytes.Buffer
	progressBar(&b)(5, 10, 3<<20)
	if !strings.Contains(b.String(), "[===============               ] 5 of 10 files, 3.0 MB") {
		t.Error(b.String())
	}
}

// What is done to another tool, and what of handoff's command line is passed on.
func TestProvePlan(t *testing.T) {
	requests := filepath.Join(t.TempDir(), "r.http")
	os.WriteFile(requests, []byte("GET /a\n###\nPOST /b\n\nbody\n"), 0o644)
	for line, want := range map[string]string{
		"":                          "broken deploy 1, kill -9 of the master 3, reload 10, scale 1, upgrade 1; 1000/s, 0 requests",
		"--broken-deploy=false":     "kill -9 of the master 3, reload 10, scale 1, upgrade 1; 1000/s, 0 requests",
		"--rate 0 --kill-worker 2":  "broken deploy 1, kill -9 of a worker 2, kill -9 of the master 3, reload 10, scale 1, upgrade 1; -1/s, 0 requests",
		"--request " + requests:     "broken deploy 1, kill -9 of the master 3, reload 10, scale 1, upgrade 1; 1000/s, 2 requests",
		"--against x --address h:1": "; 1000/s, 0 requests",
		"--against x --address h:1 --against-reload y --kill-master 1": "kill -9 of the master 1, reload 10; 1000/s, 0 requests",
	} {
		proof, c := newProof(), &cobra.Command{}
		proof.flags(c)
		err := c.ParseFlags(strings.Fields(line))
		proof.note(c.Flags())
		if err != nil {
			t.Fatal(line, err)
		}
		p, err := proof.plan(0)
		if err != nil {
			t.Fatal(line, err)
		}
		var actions []string
		for d, n := range p.Times {
			if n > 0 {
				actions = append(actions, fmt.Sprintf("%s %d", d, n))
			}
		}
		slices.Sort(actions)
		if got := fmt.Sprintf("%s; %v/s, %d requests", strings.Join(actions, ", "), p.Rate, len(p.Requests)); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}
