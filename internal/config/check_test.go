package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

func parsed(t *testing.T, line ...string) (*Run, *pflag.FlagSet, error) {
	t.Helper()
	r := NewRun()
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	r.Flags(fs)
	return r, fs, fs.Parse(line)
}

// What is wrong is said in a line that names the flag; the parser finds it, or Check.
func TestMistakesInFlags(t *testing.T) {
	for line, want := range map[string]string{
		"":                                        "",
		"-n 4 --ready-timeout 30s --surge 2":      "",
		"-n 0":                                    `invalid number of workers "0": want a number from 1, max, or max-1`,
		"-n 1025":                                 "1025 workers: at most 1024 are supported with --balance even",
		"-n 257 --balance sticky":                 "257 workers: at most 256 are supported with --balance sticky",
		"-n 3 --ports 80,81":                      "--workers 3 and 2 --ports: leave out --workers, there is one worker per port",
		"-n 2 --ports 80,81":                      "",
		"--ports 80,80":                           "invalid --ports: 80 is given twice",
		"--ports 0":                               `invalid --ports "0": want numbers from 1 to 65535`,
		"--ports x":                               `invalid --ports "x": want numbers from 1 to 65535`,
		"--ready-timeout 0":                       "--ready-timeout must be greater than 0",
		"--respawn 0":                             "--respawn must be greater than 0",
		"--backoff 0":                             "--backoff must be greater than 0",
		"--upgrade-timeout 0":                     "--upgrade-timeout must be greater than 0",
		"--hook-timeout 0":                        "--hook-timeout must be greater than 0",
		"--backoff 1 --respawn 2":                 "--backoff (1s) must not be less than --respawn (2s)",
		"--max-failures 0":                        "--max-failures must be at least 1",
		"--surge -1":                              "--surge must not be negative",
		"--max-requests -1":                       "--max-requests must not be negative",
		"--websocket-close 999":                   "--websocket-close 999: want a code from 1000 to 4999",
		"--drain-signal KILL":                     `invalid --drain-signal "KILL"`,
		"--drain-signal sigquit":                  "",
		"--hold x":                                `invalid --hold "x": want 8000`,
		"--may-drop x":                            `invalid --may-drop "x": want 8000, 8000-8010, 127.0.0.1:8000 or [::1]:8000, or a path`,
		"--health x":                              `invalid --health "x": want a path like /healthz, https:/healthz, tcp, grpc`,
		"--health /healthz":                       "",
		"--health grpc:a.B --health-host x":       "",
		"--health exec:":                          `invalid --health "exec:": want`,
		"--health / --health-status 99":           `--health-status: invalid status "99": want 200, or 200-299`,
		"--health / --health-header A":            `invalid --health-header "A": want 'NAME: VALUE'`,
		"--health / --health-interval 0":          "--health-interval and --health-timeout must be greater than 0",
		"--health / --health-fall 0":              "--health-rise and --health-fall must be at least 1",
		"--health / --health-address x":           `invalid --health-address "x": want 8000`,
		"--health tcp --balance shared":           "--health cannot ask one worker with --balance shared",
		"--no-hold 9-1":                           `invalid --no-hold "9-1": want 8000`,
		"--listen localhost:80":                   `invalid --listen "localhost:80": "localhost" is not an IP address`,
		"--contract activation":                   "--contract activation requires at least one --listen ADDR",
		"--contract activation --listen 8000":     "",
		"--watch [":                               `--watch: invalid pattern "["`,
		"--watch-ignore {":                        `--watch: invalid pattern "{"`,
		"--log-prefix --capture json":             "--log-prefix and --capture json exclude each other",
		"--log-prefix --capture prefix":           "",
		"--hook worker.crashed":                   `invalid --hook "worker.crashed": want EVENT=COMMAND`,
		"--hook worker.crshed=true":               `invalid --hook: unknown event "worker.crshed"; did you mean "worker.crashed"?`,
		"--hook nonsense=true":                    "; the events are cluster.started, ",
		"--hook before-reload=true":               "",
		"--env =secret":                           `--env "": want KEY=VALUE`,
		"--env A":                                 `--env "A": want KEY=VALUE`,
		"--env A=b=c":                             "",
		"--umask 9":                               `invalid --umask "9": want three octal digits`,
		"--nice 20":                               `invalid --nice "20": want a number from -20`,
		"--rlimit nofile":                         `invalid --rlimit "nofile": want NAME=SOFT`,
		"--rlimit nofile=9:8":                     `invalid --rlimit "nofile=9:8": want a number or unlimited`,
		"--rlimit core=unlimited --rlimit as=1:2": "",
		"--cpu-affinity x":                        `invalid --cpu-affinity "x": want CPUs like 0-3`,
		"--cpu-affinity 3-1":                      `invalid --cpu-affinity "3-1": want CPUs`,
		"--cpu-affinity 8191":                     "CPU 8191 is not available to handoff",
		"--cgroup ../x":                           `--cgroup`,
		"--pdeathsig X":                           `invalid --pdeathsig "X": want a signal`,
		"--pdeathsig sigterm":                     "",
		"--user no-such-user":                     "invalid --user: unknown user no-such-user",
		"--group no-such-group":                   "invalid --group: unknown group no-such-group",
		"--user root:root --group root":           "--user root:root and --group root: give the group only once",
		"--max-memory lots":                       `invalid --max-memory "lots": want a size`,
		"--max-memory 1.5GiB":                     "",
		"--max-memory 0.1":                        `invalid --max-memory "0.1": want a size`,
		"--balance odd":                           "want one of even, sticky, shared",
		"--ready-timeout soon":                    "want a duration like 500ms, 30s or 2m",
		"--ready-delay soon":                      "want a duration like 500ms, 30s or 2m",
	} {
		r, _, err := parsed(t, strings.Fields(line)...)
		if err == nil {
			err = r.Check()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", line, err, want)
		}
	}
}

func TestMistakesInFiles(t *testing.T) {
	for text, want := range map[string]string{
		"workers = 4\nready_timeout = \"30s\"\n": "",
		"worker = 4\n":                           `f.toml:1:1: unknown key "worker"; did you mean "workers"?`,
		"nonsense = 4\n":                         "f.toml:1:1: unknown key \"nonsense\"; `handoff init` lists all keys",
		"ready-timeout = 4\n":                    `f.toml:1:1: unknown key "ready-timeout"; did you mean "ready_timeout"?`,
		"scratch = true\n":                       `unknown key "scratch"`,
		"workers = [1, 2]\n":                     "workers: want one value, not a list",
		"watch = true":                           "f.toml:1:1: watch: want a text in quotes, not true",
		"pid_file = false":                       "f.toml:1:1: pid_file: want a text in quotes, not false",
		"command = true":                         "f.toml:1:1: command: want a program",
		"\nno_preload = 1\n":                     "f.toml:2:1: no_preload: want true or false",
		"balance = \"odd\"\n":                    "balance: want one of even, sticky, shared",
		"workers = 1\nworkers = 2\n":             "f.toml:2:",
		"[server]\na = 1\n":                      "unknown table [server]; the only tables are [env] and [hooks]",
		"[[env]]\na = 1\n":                       "unknown table [env]",
		"server.port = 1\n":                      `unknown key "server.port"; the only tables are [env] and [hooks]`,
		"hooks = \"x\"\n":                        `hooks are a table: [hooks]`,
		"hook = [\"x\"]\n":                       `hooks are a table: [hooks]`,
		"command = []\n":                         "command: want a program",
		"command = \"\"\n":                       "command: want a program",
		"workers = {a = 1}\n":                    "workers: want a string, a number, true or false",
		"listen = [[1]]\n":                       "listen: want a string, a number, true or false",
		"env = {A = [1]}\n":                      "env.A: want a string",
		"[env]\nA = [1]\n":                       "env.A: want a string, a number, true or false",
		"[hooks]\nworker.crashed = {}\n":         "hooks.worker.crashed: want a string",
		"max_failures = \"many\"\n":              "max_failures: ",
		"workers = \n":                           "f.toml:1:",
		"env = {A = 1, \"B.C\" = true}\nlisten = [ \"a=1\", # why\n 80 ]\n[hooks]\n\"worker.crashed\" = [\"a\", # why\n\"b\"]\n": "",
	} {
		f, err := ParseFile("f.toml", []byte(text))
		_, fs, _ := parsed(t)
		if err == nil {
			err = f.Apply(fs)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

// Flags win over the environment, that over the file, that over the defaults.
func TestOrder(t *testing.T) {
	t.Setenv("HANDOFF_WORKERS", "2")
	t.Setenv("HANDOFF_SURGE", "2")
	t.Setenv("HANDOFF_MAX_FAILURES", "") // as if it were not there
	r, fs, err := parsed(t, "-n", "3", "--env", "FLAG=1")
	if err == nil {
		err = FromEnviron(fs)
	}
	f, ferr := ParseFile("f.toml", []byte("workers = 1\nsurge = 1\nrespawn = 1\nenv = {FILE = 1}\n"))
	if err != nil || ferr != nil || f.Apply(fs) != nil {
		t.Fatal(err, ferr)
	}
	if r.Workers != "3" || r.Surge != 2 || r.Respawn != time.Second || r.MaxFailures != 3 || !slices.Equal(r.Env, []string{"FLAG=1"}) {
		t.Errorf("%+v", r)
	}
	t.Setenv("HANDOFF_RESPAWN", "soon")
	_, fs, _ = parsed(t)
	if err := FromEnviron(fs); err == nil || !strings.Contains(err.Error(), `invalid value "soon" of HANDOFF_RESPAWN`) {
		t.Error(err)
	}
}

// What `handoff init` writes is taken, says nothing but the command, and has every key.
func TestSample(t *testing.T) {
	_, fs, _ := parsed(t)
	text := Sample(fs, `"app.js"`)
	f, err := ParseFile("handoff.toml", text)
	if err != nil || !slices.Equal(f.Command, []string{"app.js"}) || len(f.values) != 0 {
		t.Fatalf("%v, %q, %d values", err, f.Command, len(f.values))
	}
	// Each line that is commented out can be put in as it stands.
	var all []string
	for line := range strings.Lines(string(text)) {
		if key, _, ok := strings.Cut(strings.TrimPrefix(line, "# "), " = "); ok && strings.HasPrefix(line, "# ") && !strings.ContainsAny(key, " \"") && strings.ToLower(key) == key {
			all = append(all, strings.TrimPrefix(line, "# "))
		}
	}
	for _, key := range Keys(fs) {
		if !slices.ContainsFunc(all, func(l string) bool { return strings.HasPrefix(l, key+" = ") }) && !slices.Contains([]string{"command", "env", "hooks"}, key) {
			t.Errorf("%s is not in it", key)
		}
	}
	f, err = ParseFile("handoff.toml", []byte(strings.Join(all, "")))
	if err != nil {
		t.Fatal(err)
	}
	r, fs, _ := parsed(t)
	if err := f.Apply(fs); err != nil || r.Check() != nil {
		t.Error(err, r.Check())
	}
}

func TestSchemaHasEveryKey(t *testing.T) {
	_, fs, _ := parsed(t)
	b, err := Schema(fs)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range Keys(fs) {
		if !strings.Contains(string(b), `"`+key+`": {`) {
			t.Errorf("no %s", key)
		}
	}
}

func TestEffective(t *testing.T) {
	r, _, _ := parsed(t, "-n", "3", "--env", "SECRET=1", "--hook", "worker.crashed=curl https://token@x", "--ports", "80,81", "--drain-timeout", "2m")
	all := r.Effective()
	if all["workers"] != "3" || all["drain_timeout"] != "2m" || !slices.Equal(all["ports"].([]string), []string{"80", "81"}) ||
		!slices.Equal(all["env"].([]string), []string{"SECRET"}) || !slices.Equal(all["hook"].([]string), []string{"worker.crashed"}) || all["ready_delay"] != "auto" {
		t.Errorf("%+v", all)
	}
	if _, ok := all["scratch"]; ok {
		t.Error("a hidden flag is a key")
	}
	if !slices.Equal(r.Ports, []string{"80", "81"}) {
		t.Error("Effective has changed it")
	}
}

func TestContractAndDelay(t *testing.T) {
	for _, c := range []struct {
		flags, program, contract string
		delay                    time.Duration
	}{
		{"", "node", "node", 0},
		{"", "/usr/bin/nodejs", "node", 0},
		{"", "gunicorn", "bind", time.Second},
		{"--contract bind", "node", "bind", time.Second},
		{"--contract activation", "x", "activation", time.Second},
		{"--ready-delay 0", "gunicorn", "bind", 0},
		{"--ready-delay 3", "node", "node", 3 * time.Second},
	} {
		r, _, _ := parsed(t, strings.Fields(c.flags)...)
		if got := r.ContractOf([]string{c.program}); got != c.contract || r.ReadyDelayOf([]string{c.program}) != c.delay {
			t.Errorf("%s %s: %s, %v", c.flags, c.program, got, r.ReadyDelayOf([]string{c.program}))
		}
	}
}

func TestServiceName(t *testing.T) {
	for name, want := range map[string]string{"web": "web", "my web!": "my-web-", "..": "handoff", "-x": "x", "é": "-", strings.Repeat("a", 99): strings.Repeat("a", 64)} {
		if got := ServiceName(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TypeScript is run by a node that can, with the flag that it needs.
func TestTypeScript(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	for says, want := range map[string]string{
		"24.1.0,true":  "node app.ts",
		"22.6.0,false": "node --experimental-strip-types app.ts",
		"23.0.0,false": "node --experimental-strip-types app.ts",
		"22.5.9,false": "cannot run app.ts: node 22.5.9 cannot run TypeScript",
		"":             "cannot run app.ts: cannot run node",
	} {
		text := "#!/bin/sh\necho " + says + "\n"
		if says == "" {
			text = "#!/bin/sh\nexit 1\n"
		}
		os.WriteFile(filepath.Join(bin, "node"), []byte(text), 0o755)
		command, script, err := CommandLine([]string{"app.ts"}, "/")
		if got := strings.Join(command, " "); err == nil && (got != want || command[script] != "app.ts") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %s, %v", says, got, err)
		}
	}
}

func TestStartConditions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, c := range []struct {
		user, group string
		uid, gid    int
	}{{"nobody", "", 65534, 65534}, {"65534", "", 65534, 65534}, {"nobody:root", "", 65534, 0}, {"nobody", "0", 65534, 0}} {
		s := &Start{User: c.user, Group: c.group}
		got, err := s.Conditions()
		if err != nil || got.User == nil || got.User.UID != c.uid || got.User.GID != c.gid || !slices.Contains(got.User.Groups, c.gid) && c.group != "" {
			t.Errorf("%+v: %+v, %v", c, got.User, err)
		}
		if env := s.Environ(); (c.user != "") != slices.Contains(env, "USER=nobody") {
			t.Errorf("%+v: %q", c, env)
		}
	}
}

func TestCgroup(t *testing.T) {
	for name, ok := range map[string]bool{"workers": true, "/a/b": true, "a/../b": false, "": false, "a//b": false} {
		dir, err := cgroupOf(name)
		if err != nil && strings.Contains(err.Error(), "no cgroup v2") {
			t.Skip(err)
		}
		if (err == nil) != ok || ok && !strings.HasSuffix(dir, name) {
			t.Errorf("%q: %s, %v", name, dir, err)
		}
	}
}

// What the kernel shows of mounts and cgroups, and what becomes of it.
func TestCgroupIn(t *testing.T) {
	const mounts = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
	for _, c := range []struct{ mounts, cgroups, name, want string }{
		{mounts, "0::/system.slice/web.service\n", "workers", "/sys/fs/cgroup/system.slice/web.service/workers"},
		{mounts, "12:cpu:/x\n0::/\n", "/web", "/sys/fs/cgroup/web"},
		{"cgroup2 /my\\040cgroups cgroup2 rw 0 0\n", "0::/a\n", "b", "/my cgroups/a/b"},
		{mounts, "0::/../../web\n", "/b", "/sys/fs/cgroup/b"},
		{mounts, "0::/../../web\n", "b", "--cgroup b: handoff's own cgroup is outside of its cgroup namespace: give a path from the root, like /b"},
		{"", "0::/a\n", "b", "--cgroup: no cgroup v2 hierarchy is mounted"},
	} {
		if dir, err := cgroupIn(c.mounts, c.cgroups, c.name); dir != c.want && (err == nil || err.Error() != c.want) {
			t.Errorf("%+v: %s, %v", c, dir, err)
		}
	}
}

func TestDefaultsInAContainer(t *testing.T) {
	t.Setenv("container", "podman")
	if r := NewRun(); r.DrainTimeout != drainTimeoutContainer || r.KillGrace != killGraceContainer {
		t.Errorf("%v, %v", r.DrainTimeout, r.KillGrace)
	}
	var levels []string
	for _, l := range []string{"debug", "info", "warn", "error"} {
		r, _, _ := parsed(t, "--log-level", l)
		levels = append(levels, r.Level().String())
	}
	if strings.Join(levels, " ") != "DEBUG INFO WARN ERROR" {
		t.Error(levels)
	}
}

func TestWorkdir(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "sub"), 0o755)
	for name, want := range map[string]string{"": dir, "sub": filepath.Join(dir, "sub"), dir: dir, "no": ""} {
		r := NewRun()
		r.Dir = name
		if got, err := r.Workdir(dir); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
}

// The sample's words are TOML whatever a default is.
func TestLiteral(t *testing.T) {
	_, fs, _ := parsed(t)
	fs.VisitAll(func(f *pflag.Flag) {
		var v map[string]any
		if err := toml.Unmarshal([]byte("a = "+literal(f)), &v); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	})
}
