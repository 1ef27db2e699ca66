package service

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/capture"
	"handoff/internal/config"
	"handoff/master"
	"handoff/master/fleet"
)

// source is one of a command line in a folder.
func source(t *testing.T, here string, before *Program, reread bool, line ...string) Source {
	t.Helper()
	cfg := config.NewRun()
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	cfg.Flags(flags)
	if err := flags.Parse(line); err != nil {
		t.Fatal(err)
	}
	return Source{Flags: flags, Run: cfg, Args: flags.Args(), Here: here, Before: before, Reread: reread}
}

func folder(t *testing.T, files string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err == nil {
		err = txtar.Write(txtar.Parse([]byte(files)), dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

const files = `
-- app.js --
-- other.js --
-- full/handoff.toml --
command = ["node", "app.js", "-v"]
name = "shop"
workers = 3
-- full/app.js --
-- empty/x --
-- bare/handoff.toml --
workers = 2
-- wrong/handoff.toml --
command = "app.js"
workers = 0
-- typo/handoff.toml --
command = "app.js"
worker = 1
-- rack/.rack.json --
{"head": "v1", "versions": ["v1"]}
-- rack/v1/.rackman.json --
{"server": "app.js", "ports": [3000, 3001]}
-- rack/v1/app.js --
-- toml/.rack.json --
{"head": "v1", "versions": ["v1"]}
-- toml/v1/handoff.toml --
command = ["node", "app.js"]
workers = 3
cwd = "lib"
-- toml/v1/lib/app.js --
-- start/.rack.json --
{"head": "v1", "versions": ["v1"]}
-- start/v1/package.json --
{"scripts": {"start": "node app.js --port 80"}}
-- start/v1/app.js --
-- nothing/.rack.json --
{"head": "v1", "versions": ["v1"]}
-- nothing/v1/package.json --
{"name": "web"}
-- both/.rack.json --
{"head": "v1", "versions": ["v1"]}
-- both/v1/.rackman.json --
{"server": "app.js"}
-- both/v1/handoff.toml --
command = "other.js"
-- both/v1/app.js --
-- npm/package.json --
{"scripts": {"start": "next start"}}
-- alone/.rackman.json --
{"server": "app.js"}
-- alone/app.js --
-- pm2/eco.config.json --
{"apps": [{"name": "api", "script": "app.js"}, {"name": "web", "script": "app.js", "kill_timeout": 7000}]}
-- pm2/app.js --
-- bad.config.json --
{"apps": []}
`

// What is meant by a command line, in a folder with files.
func TestResolve(t *testing.T) {
	dir := folder(t, files)
	for _, c := range []struct {
		line    string // in dir
		want    string // name: command in cwd, with the file that says so
		workers string
	}{
		{"app.js", "app: node app.js in .", "max"},
		{"-n 2 -- node app.js x", "app: node app.js x in .", "2"},
		{"--name web --cwd full app.js", "web: node app.js in full", "max"},
		{"full", "shop: node app.js -v in full by full/handoff.toml", "3"},
		{"-c full/handoff.toml -n 1", "shop: node app.js -v in full by full/handoff.toml", "1"},
		{"-c full/handoff.toml -- python3 app.py", "shop: python3 app.py in full by full/handoff.toml", "3"},
		{"-c bare/handoff.toml -- /usr/bin/gunicorn app:app", "gunicorn: /usr/bin/gunicorn app:app in bare by bare/handoff.toml", "2"},
		{"rack", "rack: node app.js in rack/v1 by rack/.rack.json rack", "max"},
		{"toml", "toml: node app.js in toml/v1/lib by toml/.rack.json rack", "3"},
		{"-c toml/.rack.json --rack-version v1", "toml: node app.js in toml/v1/lib by toml/.rack.json rack", "3"},
		{"start", "start: node app.js --port 80 in start/v1 by start/.rack.json rack", "max"},
		{"both", "both: node app.js in both/v1 by both/.rack.json rack", "max"},
		{"npm", "npm: npm start in npm by npm/package.json", "max"},
		{"alone", "alone: node app.js in alone by alone/.rackman.json rack", "max"},
		{"--only web pm2/eco.config.json", "web: node app.js in pm2 by pm2/eco.config.json", "1"},
		{"--embedded app.js", "app: node app.js in .", "max"},
		{"--scratch -n 4 app.js", "app: node app.js in .", "1"},
		{"--scratch rack", "rack: node app.js in rack/v1 by rack/.rack.json rack", "1"},
	} {
		s := source(t, dir, nil, false, strings.Fields(c.line)...)
		r, err := s.Resolve()
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		rel := func(b []byte) string { p, _ := filepath.Rel(dir, string(b)); return p }
		got := fmt.Sprintf("%s: %s in %s", r.Name, strings.Join(r.Command(), " "), rel(r.Dir))
		if len(r.Config) > 0 {
			got += " by " + rel(r.Config)
		}
		if len(r.Rack) > 0 {
			got += " rack"
		}
		if got != c.want || s.Run.Workers != c.workers {
			t.Errorf("%s: %s, %s workers; want %s, %s", c.line, got, s.Run.Workers, c.want, c.workers)
		}
		if (r.Report != "") != strings.Contains(c.line, "pm2") {
			t.Errorf("%s: report %q", c.line, r.Report)
		}
		// What was found out is what the next master finds, whatever is on disk then.
		text, _ := r.Encode()
		before, ok := Decode(text)
		if !ok || !reflect.DeepEqual(before, r.Program) {
			t.Errorf("%s: %+v is not %+v", c.line, before, r.Program)
		}
	}
}

func TestMistakes(t *testing.T) {
	dir := folder(t, files)
	for _, c := range []struct {
		line, want string
		failure    bool // of the machine, not of usage
	}{
		{"", "nothing to run: give a program", false},
		{"nothing", "nothing/v1: it has no handoff.toml, no .rackman.json, and no package.json that starts something", true},
		{"empty", "it has no handoff.toml, no .rack.json or .rackman.json, and no package.json that starts something", true},
		{"-c bare/handoff.toml", "bare/handoff.toml has no key command", false},
		{"wrong", "wrong/handoff.toml together", false},
		{"typo", `did you mean "workers"?`, false},
		{"-c no.toml", "no such file", true},
		{"missing.js", "cannot run missing.js", true},
		{"--cwd nowhere app.js", "not a directory", true},
		{"bad.config.json", "no apps in it", false},
		{"-n 0 app.js", "invalid number of workers", false},
	} {
		_, err := source(t, dir, nil, false, strings.Fields(c.line)...).Resolve()
		var f Failure
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &f) != c.failure {
			t.Errorf("%s: %v (%T), want %q", c.line, err, err, c.want)
		}
	}
	t.Setenv("HANDOFF_WORKERS", "x")
	t.Setenv("HANDOFF_SURGE", "y")
	if _, err := source(t, dir, nil, false, "app.js").Resolve(); err == nil || !strings.Contains(err.Error(), "HANDOFF_SURGE") {
		t.Errorf("%v", err)
	}
}

// A master that comes after another goes by what that one went by, until it is told to
// read again.
func TestNextMaster(t *testing.T) {
	dir := folder(t, files)
	first, err := source(t, dir, nil, false, "full").Resolve()
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "full/handoff.toml"), []byte("command = \"gone.js\"\nname = \"new\"\nworkers = 9\n"), 0o644)
	s := source(t, "/", &first.Program, false, "full")
	next, err := s.Resolve()
	if err != nil || !reflect.DeepEqual(next.Program, first.Program) || s.Run.Workers != "3" {
		t.Errorf("%v, %s workers, %+v", err, s.Run.Workers, next)
	}
	s = source(t, "/", &first.Program, true, "full")
	again, err := s.Resolve() // that gone.js is not there is the generation's to find
	if err != nil || string(again.Name) != "shop" || s.Run.Workers != "9" || !slices.Equal(again.Command(), []string{"node", "gone.js"}) {
		t.Errorf("%v, %s workers, %s: %q", err, s.Run.Workers, again.Name, again.Command())
	}
	os.Remove(filepath.Join(dir, "full/handoff.toml"))
	if _, err = source(t, "/", &first.Program, true, "full").Resolve(); err == nil {
		t.Error("a file that has gone is read")
	}
	// Without a file, one that appears later is not meant by a crash, but by a reload.
	plain, _ := source(t, dir, nil, false, "app.js").Resolve()
	os.WriteFile(filepath.Join(dir, "handoff.toml"), []byte("workers = 5\n"), 0o644)
	for reread, want := range map[bool]string{false: "max", true: "5"} {
		s := source(t, "/", &plain.Program, reread, "app.js")
		if _, err := s.Resolve(); err != nil || s.Run.Workers != want {
			t.Errorf("reread %v: %v, %s workers", reread, err, s.Run.Workers)
		}
	}
	for _, text := range []string{"", "{}", `{"Args":["bm9kZQ=="],"Script":1,"Dir":"Lw=="}`, `{"Args":["bm9kZQ=="]}`, `{"Args":["bm9kZQ=="],"Script":-1,"Dir":"Lw=="}`} {
		if p, ok := Decode([]byte(text)); ok {
			t.Errorf("%s: %+v", text, p)
		}
	}
}

// Each key that reaches the master, by what it does there.
func TestLive(t *testing.T) {
	world := World{Environ: []string{"PATH=/bin", "HOME=/nowhere"}, Binary: "/usr/bin/handoff", Preload: func(int) (string, error) { return "/preload.cjs", nil }, Log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		flags string
		get   func(master.Live) any
		want  any
	}{
		{"-n 3", func(l master.Live) any { return l.Fleet.Slots }, 3},
		{"--ready-timeout 7", func(l master.Live) any { return l.Fleet.ReadyTimeout }, 7 * time.Second},
		{"", func(l master.Live) any { return l.Fleet.ReadyDelay }, time.Duration(0)},
		{"--contract bind", func(l master.Live) any { return l.Fleet.ReadyDelay }, time.Second},
		{"--ready-delay 3", func(l master.Live) any { return l.Fleet.ReadyDelay }, 3 * time.Second},
		{"--quiet-timeout 7", func(l master.Live) any { return l.Fleet.QuietTimeout }, 7 * time.Second},
		{"", func(l master.Live) any { return l.QuietGrace }, quietGrace},
		{"--quiet-timeout 0", func(l master.Live) any { return l.QuietGrace }, time.Duration(0)},
		{"--drain-timeout 7", func(l master.Live) any { return l.Fleet.DrainTimeout }, 7 * time.Second},
		{"--kill-grace 7", func(l master.Live) any { return l.Fleet.KillGrace }, 7 * time.Second},
		{"", func(l master.Live) any { return l.Fleet.DrainedGrace }, drainedGrace},
		{"--respawn 7", func(l master.Live) any { return l.Fleet.Respawn }, 7 * time.Second},
		{"--backoff 7", func(l master.Live) any { return [2]time.Duration{l.Fleet.Backoff, l.Fleet.Stable} }, [2]time.Duration{7 * time.Second, 7 * time.Second}},
		{"--max-failures 7", func(l master.Live) any { return l.Fleet.MaxFailures }, 7},
		{"--strategy slot", func(l master.Live) any { return l.Fleet.Strategy }, fleet.Slot},
		{"", func(l master.Live) any { return l.Fleet.Strategy }, fleet.All},
		{"--surge 2", func(l master.Live) any { return l.Fleet.Surge }, 2},
		{"--overlap none", func(l master.Live) any { return l.Fleet.NoOverlap }, true},
		{"", func(l master.Live) any { return l.Fleet.NoOverlap }, false},
		{"--canary 7", func(l master.Live) any { return l.Fleet.Canary }, 7 * time.Second},
		{"--watchdog 7", func(l master.Live) any { return l.Fleet.Watchdog }, 7 * time.Second},
		{"--drain-spread 7", func(l master.Live) any { return l.Fleet.DrainSpread }, 7 * time.Second},
		{"--max-age 1h", func(l master.Live) any { return l.Fleet.MaxAge }, time.Hour},
		{"--reload-every 1h", func(l master.Live) any { return l.Fleet.ReloadEvery }, time.Hour},
		{"--embedded", func(l master.Live) any { return l.Fleet.RetryFirst }, true},
		{"--cwd sub", func(l master.Live) any { return filepath.Base(l.Command.Dir) }, "sub"},
		{"", func(l master.Live) any { return l.Command.Args }, []string{"node", "app.js"}},
		{"", func(l master.Live) any { return l.Command.Script }, 1},
		{"", func(l master.Live) any { return l.Command.Env }, []string{"PATH=/bin", "HOME=/nowhere"}},
		{"--env A=1", func(l master.Live) any { return l.Command.Set }, []string{"A=1"}},
		{"--env-file .env", func(l master.Live) any { return l.Command.EnvFile }, ".env"},
		{"--drain-signal quit", func(l master.Live) any { return l.DrainSignal }, unix.SIGQUIT},
		{"", func(l master.Live) any { return [2]any{l.DrainSignal, l.DrainReason} }, [2]any{unix.SIGTERM, ""}},
		{"--drain-message bye", func(l master.Live) any { return l.DrainMessage }, "bye"},
		{"--slot-variable S", func(l master.Live) any { return l.SlotVariable }, "S"},
		{"--ready-when started", func(l master.Live) any { return l.ReadyWhen }, master.ReadyWhen("started")},
		{"--ports 80,81", func(l master.Live) any { return l.Ports }, []int{80, 81}},
		{"--no-hold 9229", func(l master.Live) any { return l.Holds(netip.MustParseAddrPort("127.0.0.1:9229")) }, false},
		{"--may-drop 9090 --may-drop unix:/run/a", func(l master.Live) any {
			return [4]bool{l.MayDrop(netip.MustParseAddrPort("127.0.0.1:9090"), ""), l.MayDrop(netip.AddrPort{}, "/run/a"), l.MayDrop(netip.MustParseAddrPort("127.0.0.1:80"), ""), l.MayDrop(netip.AddrPort{}, "/run/b")}
		}, [4]bool{true, true}},
		{"", func(l master.Live) any { return l.MaxSlots }, 1024},
		{"--balance sticky", func(l master.Live) any { return l.Balance }, handoff.Sticky},
		{"--balance shared", func(l master.Live) any { return l.Balance }, handoff.Shared},
		{"--nice 5", func(l master.Live) any { return *l.Conditions.Nice }, 5},
		{"--max-memory 1K", func(l master.Live) any { return l.MaxMemory }, int64(1024)},
		{"--max-requests 9", func(l master.Live) any { return l.MaxRequests }, 9},
		{"--stall-kill 7", func(l master.Live) any { return l.StallKill }, 7 * time.Second},
		{"", func(l master.Live) any { p, ok := Decode(l.Program); return ok && p.Script == 1 }, true},
	} {
		dir := folder(t, "-- app.js --\n-- sub/app.js --\n")
		s := source(t, dir, nil, false, append(strings.Fields(c.flags), "app.js")...)
		r, err := s.Resolve()
		if err != nil {
			t.Fatal(c.flags, err)
		}
		live, err := Live(s.Run, r.Program, world)
		if err != nil {
			t.Fatal(c.flags, err)
		}
		if got := c.get(live); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, want %v", c.flags, got, c.want)
		}
	}
	for _, broken := range []func(*config.Run){
		func(c *config.Run) { c.Workers = "x" }, func(c *config.Run) { c.DrainSignal = "x" }, func(c *config.Run) { c.Ports = []string{"x"} },
		func(c *config.Run) { c.Umask = "x" }, func(c *config.Run) { c.MaxMemory = "x" }, func(c *config.Run) { c.HoldOnly = []string{"x"} },
	} {
		cfg := config.NewRun()
		broken(cfg)
		if _, err := Live(cfg, Program{Args: [][]byte{[]byte("node")}}, world); err == nil {
			t.Errorf("taken: %+v", cfg)
		}
	}
}

// A program is known by the file that its name stands for, as the worker's PATH has it.
func TestDrainSignalOfAFile(t *testing.T) {
	dir := folder(t, "-- bin/nginx --\n")
	if err := os.Chmod(filepath.Join(dir, "bin/nginx"), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Symlink("bin/nginx", filepath.Join(dir, "web"))
	w := World{Environ: []string{"PATH=" + dir}, Preload: func(int) (string, error) { return "/p.cjs", nil }, Log: slog.New(slog.DiscardHandler)}
	for _, command := range []string{"web", "./web -p .", "env A=1 web"} {
		var args [][]byte
		for _, a := range strings.Fields(command) {
			args = append(args, []byte(a))
		}
		live, err := Live(config.NewRun(), Program{Dir: []byte(dir), Args: args}, w)
		if err != nil || live.DrainSignal != unix.SIGQUIT || live.DrainReason == "" {
			t.Errorf("%s: %v %q, %v", command, live.DrainSignal, live.DrainReason, err)
		}
	}
}

// What workers get in their environment, by contract.
func TestWorkersEnvironment(t *testing.T) {
	for _, c := range []struct {
		flags, command, want, not string
	}{
		{"", "node", "HANDOFF_DRAIN_SIGNAL=TERM HANDOFF_KEEPALIVE_LINGER=6s NODE_OPTIONS= HANDOFF_PRELOAD_LINGER_MS=6000", "HANDOFF_PRELOAD_EMIT="},
		{"--drain-timeout 4", "node", "HANDOFF_KEEPALIVE_LINGER=3s", ""},
		{"--drain-timeout 0", "node", "HANDOFF_KEEPALIVE_LINGER=6s", ""},
		{"--drain-signal INT", "node", "HANDOFF_DRAIN_SIGNAL=INT HANDOFF_PRELOAD_EMIT=SIGINT", ""},
		{"--no-preload", "node", "HANDOFF_DRAIN_SIGNAL=TERM", "NODE_OPTIONS="},
		{"--websocket-close 1012", "node", "HANDOFF_PRELOAD_WEBSOCKET=1012,0", ""},
		{"", "gunicorn", "HANDOFF_PRELOAD_NOTIFY=/usr/bin/handoff HANDOFF_DRAIN_SIGNAL=TERM", ""},
		{"", "nginx", "HANDOFF_DRAIN_SIGNAL=QUIT HANDOFF_PRELOAD_SIGNAL=SIGQUIT", ""},
		{"", "uwsgi", "HANDOFF_DRAIN_SIGNAL=INT UWSGI_HOOK_MASTER_START=unix_signal:2", ""},
		{"--drain-signal INT", "uwsgi", "HANDOFF_DRAIN_SIGNAL=INT", "UWSGI_"},
		{"--ready-when ready", "npm", "HANDOFF_PRELOAD_READY=1", ""},
		{"", "node", "", "HANDOFF_PRELOAD_NOTIFY="},
	} {
		s := source(t, "/", nil, false, strings.Fields(c.flags)...)
		drain, _ := s.Run.DrainSignalOf([]string{c.command, "x"}, "")
		env := strings.Join(environ(s.Run, []string{c.command, "x"}, drain, World{Binary: "/usr/bin/handoff", Preload: func(int) (string, error) { return "/p.cjs", nil }})([]string{"A=1"}), "\n")
		for _, w := range strings.Fields(c.want) {
			if !strings.Contains(env, "\n"+w) {
				t.Errorf("%s %s: no %s in\n%s", c.flags, c.command, w, env)
			}
		}
		if c.not != "" && strings.Contains(env, "\n"+c.not) {
			t.Errorf("%s %s: %s in\n%s", c.flags, c.command, c.not, env)
		}
	}
	// Where the preload cannot be stored, that is said once, and workers start without.
	var said bytes.Buffer
	w := World{Preload: func(int) (string, error) { return "", errors.New("cannot store it") }, Log: slog.New(slog.NewTextHandler(&said, nil))}
	add := environ(config.NewRun(), []string{"node"}, config.DrainSignal{Signal: unix.SIGTERM}, w)
	add(nil)
	if env := add(nil); strings.Contains(strings.Join(env, " "), "NODE_OPTIONS") || strings.Count(said.String(), "cannot store it") != 1 {
		t.Errorf("%q, said %s", env, said.String())
	}
}

func TestFixed(t *testing.T) {
	before := config.NewRun()
	fixed := NewFixed(before)
	for _, c := range []struct {
		what  string
		set   func(*config.Run)
		later []string
		kept  func(*config.Run) bool
	}{
		{"nothing", func(*config.Run) {}, nil, nil},
		{"name and log", func(c *config.Run) { c.Name, c.Log = "x", "json" }, []string{"log", "name"}, nil},
		{"the same again", func(c *config.Run) { c.Name, c.Log = "x", "json" }, nil, nil},
		{"another value", func(c *config.Run) { c.Name = "y" }, []string{"name"}, nil},
		{"contract", func(c *config.Run) { c.Contract = "bind" }, []string{"contract"}, func(c *config.Run) bool { return c.Contract == "auto" }},
		{"pdeathsig", func(c *config.Run) { c.Death = "TERM" }, []string{"pdeathsig"}, func(c *config.Run) bool { return c.Death == "" }},
		{"sticky", func(c *config.Run) { c.Balance = "sticky" }, nil, func(c *config.Run) bool { return c.Balance == "sticky" }},
		{"shared", func(c *config.Run) { c.Balance = "shared" }, []string{"balance"}, func(c *config.Run) bool { return c.Balance == "sticky" }},
		{"the rest", func(c *config.Run) {
			c.Listen, c.PIDFile, c.Admin, c.AdminToken, c.LogFile, c.UpgradeTimeout, c.Capture = []string{"80"}, "p", "a", "t", "l", time.Hour, "json"
		}, []string{"admin", "admin_token_file", "capture", "listen", "log_file", "pid_file", "upgrade_timeout"}, nil},
		{"what may change", func(c *config.Run) {
			c.Workers, c.ReadyTimeout, c.LogLevel, c.Watch = "9", time.Hour, "debug", []string{"**"}
		}, nil, nil},
	} {
		cfg := config.NewRun()
		c.set(cfg)
		if later := fixed.Keep(cfg); !slices.Equal(later, c.later) || c.kept != nil && !c.kept(cfg) {
			t.Errorf("%s: %q, want %q; %+v", c.what, later, c.later, cfg)
		}
		fixed.Took(cfg)
	}
}

func TestBeside(t *testing.T) {
	dir := folder(t, "-- rack/.rackhooks.js --\n-- rack/v1/app.js --\n-- rack/v2/.rackhooks.js --\n")
	path := func(p string) []byte { return []byte(filepath.Join(dir, p)) }
	rack := Program{Here: path("rack"), Dir: path("rack/v1"), Rack: path("rack"), Config: path("rack/.rack.json"), Name: []byte("web"), Args: [][]byte{[]byte("node")}}
	cfg := config.NewRun()

	if w := Watch(cfg, Program{Dir: path("rack/v1"), Config: path("handoff.toml")}); w.Dir != "" || w.Files != nil {
		t.Errorf("watched, though nobody asked: %+v", w)
	}
	cfg.Watch, cfg.WatchIgnore, cfg.WatchDelay = []string{"**"}, []string{"tmp"}, time.Minute
	if w := Watch(cfg, Program{Dir: path("x/"), Config: path("handoff.toml")}); w.Dir != string(path("x")) || !slices.Equal(w.Files, []string{string(path("handoff.toml"))}) ||
		!slices.Equal(w.Patterns, cfg.Watch) || !slices.Equal(w.Ignore, cfg.WatchIgnore) || w.Delay != time.Minute {
		t.Errorf("%+v", w)
	}
	cfg.Capture, cfg.LogFile, cfg.PIDFile = "files", "x.log", "/run/web.pid"
	if w := Watch(cfg, rack); !slices.Equal(w.Own, []string{dir + "/rack/x.log", dir + "/rack/x.log[.-][0-9]*", "/run/web.pid", "/run/web.pid[.-][0-9]*", dir + "/rack/logs/web.[0-9]*.log*"}) {
		t.Errorf("%q", w.Own)
	}
	cfg.Capture, cfg.LogFile, cfg.PIDFile = "none", "", ""
	cfg.Watch = nil
	if w := Watch(cfg, rack); !slices.Equal(w.Files, []string{string(path("rack/.rack.json")), string(path("rack/v1/.rackman.json")), string(path("rack/.rackversion"))}) {
		t.Errorf("%+v", w)
	}
	cfg.RackVersion = "v1"
	if w := Watch(cfg, rack); w.Files != nil {
		t.Errorf("a fixed version watches %q", w.Files)
	}

	cfg.Hooks = []string{"worker.crashed=true", "before_reload=false"}
	h := Hooks(cfg, rack, []string{"PWD=/x", "A=1", "NOTIFY_SOCKET=@x"})
	if !slices.Equal(h.Env, []string{"A=1", "PWD=" + string(rack.Here), "HANDOFF_NAME=web"}) || h.Dir != string(rack.Here) || len(h.Commands) != 2 || h.Timeout != cfg.HookTimeout || h.As != nil {
		t.Errorf("%+v", h)
	}
	v2 := rack
	v2.Dir = path("rack/v2")
	for p, want := range map[*Program]string{&rack: "rack/.rackhooks.js", &v2: "rack/v2/.rackhooks.js", {Dir: path("rack")}: ""} {
		if got := p.HookScript(); want == "" && got != "" || want != "" && got != string(path(want)) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	none := Program{Rack: path("no"), Dir: path("no/v1")}
	if none.HookScript() != string(path("no/.rackhooks.js")) {
		t.Error(none.HookScript())
	}
	cfg.Private = true
	if Hooks(cfg, rack, nil).Script != "" {
		t.Error("a private instance has the hooks' script")
	}
	asked := ""
	reload, ready := Vetoes(cfg, func(hook string, _ map[string]any) error { asked = hook; return errors.New("no") })
	if ready != nil || reload(nil) == nil || asked != "before_reload" {
		t.Errorf("asked %q", asked)
	}

	for flags, want := range map[string]capture.Config{
		"":                                   {Mode: capture.None, Name: "web", Dir: string(path("rack/logs"))},
		"--log-prefix":                       {Mode: capture.Prefix, Name: "web", Dir: string(path("rack/logs"))},
		"--capture files --capture-dir /var": {Mode: capture.Files, Name: "web", Dir: "/var"},
	} {
		if got := Capture(source(t, dir, nil, false, strings.Fields(flags)...).Run, rack); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", flags, got)
		}
	}
	all := Effective(cfg, rack)
	if all["name"] != "web" || all["schema"] != 1 || all["cwd"] != string(rack.Dir) || all["file"] != string(rack.Config) || !slices.Equal(all["hook"].([]string), []string{"worker.crashed", "before_reload"}) {
		t.Errorf("%+v", all)
	}
}

// Hooks of a service whose workers are somebody else's run as that one, where they are
// that one's files.
func TestHooksRunAsTheWorkers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cfg := config.NewRun()
	cfg.User = "nobody"
	h := Hooks(cfg, Program{}, nil)
	if h.As == nil || h.As.Uid == 0 || !slices.Contains(workerEnviron(cfg, []string{"USER=root"}), "USER=nobody") {
		t.Errorf("%+v", h.As)
	}
}
