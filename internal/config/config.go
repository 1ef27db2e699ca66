// Package config turns flags and environment variables into what the master
// runs by.
package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"handoff/internal/cpus"
	"handoff/internal/watch"
)

// Run is the configuration of `handoff run`. NewRun gives the defaults.
type Run struct {
	Workers        string
	ReadyWhen      string
	ReadyTimeout   time.Duration
	ReadyDelay     time.Duration // Auto: by the contract
	DrainTimeout   time.Duration
	KillGrace      time.Duration
	QuietTimeout   time.Duration
	Respawn        time.Duration
	Backoff        time.Duration
	MaxFailures    int
	Strategy       string
	Surge          int
	Canary         time.Duration
	Balance        string
	Contract       string
	DrainSignal    string
	HoldOnly       []string
	NoHold         []string
	Listen         []string
	Watchdog       time.Duration
	DrainSpread    time.Duration
	UpgradeTimeout time.Duration
	Linger         time.Duration
	NoPreload      bool
	NoSteering     bool
	PIDFile        string
	Name           string
	Dir            string
	Env            []string
	EnvFile        string
	Log            string
	LogLevel       string
	LogFile        string
	Ports          []string
	Watch          []string
	WatchIgnore    []string
	WatchDelay     time.Duration
	Admin          string
	AdminToken     string // file
	Hooks          []string
	HookTimeout    time.Duration
	LogPrefix      bool
	Capture        string
	CaptureDir     string
	Start
	Recycle
	WebsocketClose int
	Scratch        bool
	Private        bool // beside others of the same configuration: what is theirs is left alone
	RackVersion    string
	SlotVariable   string
	DrainMessage   string
	Only           string // of PM2\'s file
	PM2Env         string
	Embedded       bool   // started by the Node SDK
	Config         string // the file; "": handoff.toml, if it is there
}

// Defaults of a stop: below what a container's runtime gives it (Docker: 10 s).
const (
	drainTimeout          = 30 * time.Second
	killGrace             = 5 * time.Second
	drainTimeoutContainer = 8 * time.Second
	killGraceContainer    = time.Second
)

// NewRun returns the defaults for this machine.
func NewRun() *Run {
	r := &Run{
		Workers: "max", ReadyWhen: "listening", ReadyTimeout: time.Minute, ReadyDelay: Auto,
		DrainTimeout: drainTimeout, KillGrace: killGrace, QuietTimeout: 3 * time.Second,
		Respawn: time.Second, Backoff: 30 * time.Second, MaxFailures: 3,
		Strategy: "all", Balance: "even", Contract: "auto", DrainSignal: "TERM", Linger: 6 * time.Second, UpgradeTimeout: 15 * time.Second, WatchDelay: time.Second,
		Capture: "none", CaptureDir: "logs", HookTimeout: 30 * time.Second,
		Log: "auto", LogLevel: "info",
	}
	if InContainer() {
		r.DrainTimeout, r.KillGrace = drainTimeoutContainer, killGraceContainer
	}
	return r
}

// InContainer guesses whether a container's runtime will stop this process.
func InContainer() bool {
	if os.Getpid() == 1 || os.Getenv("container") != "" || os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return true
	}
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}

// Flags adds the flags to fs.
func (r *Run) Flags(fs *pflag.FlagSet) {
	fs.StringVarP(&r.Config, "config", "c", "", "read configuration `file` (default: handoff.toml, if it is there); flags and environment win over it")
	fs.StringVarP(&r.Workers, "workers", "n", r.Workers, "`number` of workers: 4, max (the CPUs that this process may use), max-1")
	fs.StringSliceVar(&r.Ports, "ports", nil, "a `port` for each worker: slot 0 gets the first as PORT and port in its environment, and so on; their number is that of the workers")
	choice(fs, &r.ReadyWhen, "ready-when", "what counts as ready: listening (on the first address), started (booted), ready (process.send('ready'))", "listening", "started", "ready")
	duration(fs, &r.ReadyTimeout, "ready-timeout", "from start to ready; a reload fails after it")
	fs.Var((*autoValue)(&r.ReadyDelay), "ready-delay", "in a reload, how long a worker that listens must go on before it serves, without --ready-when ready; auto: 1s, for Node 0")
	duration(fs, &r.DrainTimeout, "drain-timeout", "from drain to SIGTERM (30s; in a container 8s)")
	duration(fs, &r.KillGrace, "kill-grace", "from SIGTERM to SIGKILL (5s; in a container 1s)")
	duration(fs, &r.QuietTimeout, "quiet-timeout", "longest wait for connections on their way before a drain")
	duration(fs, &r.Respawn, "respawn", "least time between two starts of a worker that fails")
	duration(fs, &r.Backoff, "backoff", "most time between them; it doubles up to this, and is forgotten after as long a time of serving")
	fs.IntVar(&r.MaxFailures, "max-failures", r.MaxFailures, "failed starts of a worker in a row before a new generation is given up")
	choice(fs, &r.Strategy, "strategy", "how a reload switches: all (in one instant, when every new worker is ready) or slot (one by one)", "all", "slot")
	fs.IntVar(&r.Surge, "surge", r.Surge, "`workers` that start at once in a reload; 0: all of them (with --strategy slot: one)")
	duration(fs, &r.Canary, "canary", "in a reload one worker serves alone for so long first; if it fails, the reload does")
	choice(fs, &r.Balance, "balance", "how connections are spread: even, sticky (by client address), shared (one socket for all)", "even", "sticky", "shared")
	choice(fs, &r.Contract, "contract", "how workers get their sockets: node (node's cluster channel), bind (any program), activation (those of --listen alone), auto (node for node, else bind)", "auto", "node", "bind", "activation")
	fs.StringVar(&r.DrainSignal, "drain-signal", r.DrainSignal, "`signal` that tells a program to drain, under the bind contract; under the node contract listeners of the program's for another signal than TERM are called")
	fs.StringArrayVar(&r.HoldOnly, "hold", nil, "under the bind contract, hold only this `address`: 8000, 127.0.0.1:8000, 8000-8010 (may be repeated; default: every TCP address)")
	fs.StringArrayVar(&r.NoHold, "no-hold", nil, "do not hold this `address`: a debug port, say (may be repeated)")
	fs.StringArrayVar(&r.Listen, "listen", nil, "listen on `[NAME=]ADDR` and give it to each worker as systemd does (LISTEN_FDS): 8000, 127.0.0.1:8000, tcp6:8000, unix:/path,mode=660,owner=USER:GROUP (may be repeated)")
	duration(fs, &r.Watchdog, "watchdog", "replace a worker that has not said WATCHDOG=1 on its NOTIFY_SOCKET for so long; 0: never")
	duration(fs, &r.DrainSpread, "drain-spread", "spread the drains of a reload over so long, for programs with long-lived connections")
	duration(fs, &r.UpgradeTimeout, "upgrade-timeout", "how long a new binary of handoff may take to take over, before the old one goes on")
	duration(fs, &r.Linger, "keepalive-linger", "in a drain, how long idle keep-alive connections may still send a request")
	fs.IntVar(&r.WebsocketClose, "websocket-close", r.WebsocketClose, "in a drain, tell the websockets of Node programs to go, with this `code`: 1001 (going away), 1012 (restart), spread over --drain-spread; 0: they are the program's")
	fs.BoolVar(&r.NoPreload, "no-preload", r.NoPreload, "do not load the drain preload into Node programs")
	fs.StringVar(&r.PIDFile, "pid-file", r.PIDFile, "write the pid to `file`, and remove it at the end")
	fs.StringVar(&r.Name, "name", r.Name, "`name` of this service in logs (default: the program's)")
	fs.StringVar(&r.Dir, "cwd", r.Dir, "working `dir` of the workers; a symlink is followed anew at each reload (default: here)")
	fs.StringArrayVar(&r.Env, "env", r.Env, "`K=V` in the environment of the workers; may be repeated")
	fs.StringVar(&r.EnvFile, "env-file", r.EnvFile, "`file` of K=V lines, read anew at each reload")
	choice(fs, &r.Log, "log", "format of handoff's own log: text, json, auto (text on a terminal), rackman (RackMan's words)", "auto", "text", "json", "rackman")
	choice(fs, &r.LogLevel, "log-level", "least level that is logged", "debug", "info", "warn", "error")
	fs.StringVar(&r.LogFile, "log-file", r.LogFile, "log to `file` instead of stderr; SIGUSR1 reopens it")
	fs.StringArrayVar(&r.Watch, "watch", nil, "reload when a file changes that this `glob` means, relative to --cwd: '**/*.js', 'lib/**', '!**/*.test.js' (may be repeated); the configuration file is watched then, too")
	fs.StringArrayVar(&r.WatchIgnore, "watch-ignore", nil, "do not look at what this `glob` means; node_modules and names with a dot before them are not looked at anyway (may be repeated)")
	duration(fs, &r.WatchDelay, "watch-delay", "how long nothing must have changed before a reload")
	fs.StringVar(&r.Admin, "admin", r.Admin, "serve /livez, /readyz and /metrics on `HOST:PORT`, read only; others than loopback need --admin-token-file")
	fs.StringVar(&r.AdminToken, "admin-token-file", r.AdminToken, "`file` with the bearer token that --admin asks for")
	duration(fs, &r.MaxAge, "max-age", "replace a worker that has served for so long, up to a tenth sooner, one at a time; 0: never")
	fs.StringVar(&r.MaxMemory, "max-memory", r.MaxMemory, "replace a worker whose process group has more than this `size` resident, 512M or 1.5G, one at a time")
	fs.IntVar(&r.MaxRequests, "max-requests", r.MaxRequests, "replace a worker after so many `requests`, up to a tenth sooner, where it reports them (Node's http with the preload, the Go SDK); 0: never")
	duration(fs, &r.ReloadEvery, "reload-every", "reload by itself, so long after the last reload; 0: never")
	duration(fs, &r.StallKill, "stall-kill", "replace a worker that has accepted nothing for so long, with connections waiting for it and none for others; 0: only say so")
	fs.StringArrayVar(&r.Hooks, "hook", nil, "run a `EVENT=COMMAND` of the shell at an event: worker.crashed='mail -s crash root'; before_reload and before_ready may refuse (may be repeated; see `handoff help hooks`)")
	duration(fs, &r.HookTimeout, "hook-timeout", "how long a hook may take, before it is killed")
	fs.BoolVar(&r.LogPrefix, "log-prefix", r.LogPrefix, "put the worker before each line that it writes: web.0 | line (the same as --capture prefix)")
	choice(fs, &r.Capture, "capture", "what becomes of the lines that workers write: none (they have handoff's stdout and stderr), prefix, json, files (one for each slot, reopened by SIGUSR1)", "none", "prefix", "json", "files")
	fs.StringVar(&r.CaptureDir, "capture-dir", r.CaptureDir, "`dir` of the files of --capture files, relative to where handoff was started")
	fs.StringVar(&r.User, "user", r.User, "run workers as `USER[:GROUP]`, with the user's other groups; needs root")
	fs.StringVar(&r.Group, "group", r.Group, "run workers as `GROUP`")
	fs.StringVar(&r.Umask, "umask", r.Umask, "`mask` of the permissions of files that workers make: 027")
	fs.StringVar(&r.Nice, "nice", r.Nice, "priority of workers, a `number` from -20 (first) to 19 (last)")
	fs.StringArrayVar(&r.Limits, "rlimit", nil, "`NAME=SOFT[:HARD]`, a resource limit of workers: nofile=65536, core=0, as=2147483648 (may be repeated)")
	fs.StringVar(&r.CPUs, "cpu-affinity", r.CPUs, "`list` of CPUs, 0-3,6 or auto: slot 0 runs on the first of them alone, slot 1 on the second, and so on, over and over")
	fs.StringVar(&r.Cgroup, "cgroup", r.Cgroup, "put workers into this cgroup, by `name` below handoff's own where that is delegated, or /path from the root (version 2)")
	fs.StringVar(&r.Death, "pdeathsig", r.Death, "`signal` that workers get when their master ends, however it does; without it they outlive it, and nothing is lost")
	fs.StringVar(&r.SlotVariable, "slot-variable", r.SlotVariable, "another `name` in the environment of the workers for their slot, besides WORKER_ID: NODE_APP_INSTANCE")
	fs.StringVar(&r.DrainMessage, "drain-message", r.DrainMessage, "in a drain, send Node programs this `message` too (process.on('message')): shutdown")
	fs.StringVar(&r.Only, "only", r.Only, "of PM2's ecosystem file, the app of this `name`")
	fs.StringVar(&r.PM2Env, "pm2-env", r.PM2Env, "of PM2's ecosystem file, put env_`NAME` over env")
	fs.BoolVar(&r.NoSteering, "no-steering", false, "do without the kernel's steering program")
	fs.BoolVar(&r.Embedded, "embedded", false, "end with the process that has started this, try the first generation for ever, tell what workers say, and read a configuration file only where it is named")
	fs.StringVar(&r.RackVersion, "rack-version", "", "of RackMan's folder, run this `version`, whichever is live")
	fs.MarkHidden("rack-version")
	fs.BoolVar(&r.Scratch, "scratch", false, "only try the program: every address is one of loopback's, where nobody else is")
	fs.MarkHidden("scratch")
	fs.BoolVar(&r.Private, "private", false, "leave alone what others of the same configuration have: pid file, log files, --admin, hooks, watched files")
	fs.MarkHidden("private")
	fs.MarkHidden("no-steering")
	fs.MarkHidden("embedded")
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return "HANDOFF_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FromEnviron sets the flags that were not given from their variables.
func FromEnviron(fs *pflag.FlagSet) error {
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		v, ok := os.LookupEnv(EnvName(f.Name))
		if !ok || v == "" || f.Changed || f.Name == "help" {
			return
		}
		if err := fs.Set(f.Name, v); err != nil {
			errs = append(errs, fmt.Errorf("invalid value %q of %s: %w", v, EnvName(f.Name), err))
		}
	})
	return errors.Join(errs...)
}

// ForgetEnviron removes the variables of all flags from this process's environment, and
// so from that of its children. The Node SDK's program may itself run where they are set
// for another handoff.
func ForgetEnviron(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) { os.Unsetenv(EnvName(f.Name)) })
}

// Slots returns the number of workers.
func (r *Run) Slots() (int, error) {
	if len(r.Ports) > 0 {
		if n, err := strconv.Atoi(r.Workers); r.Workers != "max" && (err != nil || n != len(r.Ports)) {
			return 0, fmt.Errorf("--workers %s and %d --ports: leave --workers out, there is one worker for each port", r.Workers, len(r.Ports))
		}
		return len(r.Ports), nil
	}
	text := r.Workers
	n := 0
	if rest, ok := strings.CutPrefix(text, "max"); ok {
		n = cpus.Allowed()
		text = rest
		if text == "" {
			return n, nil
		}
		less, err := strconv.Atoi(text)
		if err != nil || less > 0 {
			return 0, fmt.Errorf("invalid number of workers %q: want a number, max, or max-1", r.Workers)
		}
		return max(n+less, 1), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("invalid number of workers %q: want a number from 1, max, or max-1", r.Workers)
	}
	if most := r.SlotsMost(); n > most {
		return 0, fmt.Errorf("%d workers are more than the %d that are supported with --balance %s", n, most, r.Balance)
	}
	return n, nil
}

// SlotsMost is how many workers the kernel's program can steer to: it has at
// most 4096 instructions, two for each slot of a random choice, ten of a sticky one.
func (r *Run) SlotsMost() int {
	if len(r.Ports) > 0 {
		return len(r.Ports)
	}
	if r.Balance == "sticky" {
		return 256
	}
	return 1024
}

// Level returns the level of the log.
func (r *Run) Level() slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo,
		"warn": slog.LevelWarn, "error": slog.LevelError}[r.LogLevel]
}

// Check finds what the flags' own types do not.
func (r *Run) Check() error {
	if _, err := r.Slots(); err != nil {
		return err
	}
	for name, d := range map[string]time.Duration{"ready-timeout": r.ReadyTimeout, "respawn": r.Respawn, "backoff": r.Backoff, "upgrade-timeout": r.UpgradeTimeout, "hook-timeout": r.HookTimeout} {
		if d <= 0 {
			return fmt.Errorf("--%s must be more than 0", name)
		}
	}
	if _, err := r.PortNumbers(); err != nil {
		return err
	}
	if err := watch.Check(append(slices.Clone(r.Watch), r.WatchIgnore...)); err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	if r.Backoff < r.Respawn {
		return fmt.Errorf("--backoff (%v) must not be less than --respawn (%v)", r.Backoff, r.Respawn)
	}
	if r.MaxFailures < 1 {
		return errors.New("--max-failures must be at least 1")
	}
	if r.Surge < 0 {
		return errors.New("--surge must not be negative")
	}
	if _, err := r.Signal(); err != nil {
		return err
	}
	if _, err := r.Holds(); err != nil {
		return err
	}
	if _, err := r.Listens("/"); err != nil {
		return err
	}
	if r.Contract == "activation" && len(r.Listen) == 0 {
		return errors.New("--contract activation needs at least one --listen ADDR, the sockets to give")
	}
	if _, err := r.Conditions(); err != nil {
		return err
	}
	if _, err := r.MemoryMost(); err != nil {
		return err
	}
	if r.MaxRequests < 0 {
		return errors.New("--max-requests must not be negative")
	}
	if r.WebsocketClose != 0 && (r.WebsocketClose < 1000 || r.WebsocketClose > 4999) {
		return fmt.Errorf("--websocket-close %d: want a code from 1000 to 4999, like 1012", r.WebsocketClose)
	}
	if r.LogPrefix && r.Capture != "none" && r.Capture != "prefix" {
		return fmt.Errorf("--log-prefix and --capture %s: give one of them", r.Capture)
	}
	if _, err := r.HookCommands(); err != nil {
		return err
	}
	for _, kv := range r.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			// The value may be a secret: it is not repeated.
			return fmt.Errorf("--env %q: want KEY=VALUE", k)
		}
	}
	return nil
}

// PortNumbers returns the ports of the slots, nil if they have none.
func (r *Run) PortNumbers() (ports []int, err error) {
	for _, text := range r.Ports {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("invalid --ports %q: want numbers from 1 to 65535, like 3000,3001", text)
		}
		if slices.Contains(ports, int(n)) {
			return nil, fmt.Errorf("invalid --ports: %d is there twice", n)
		}
		ports = append(ports, int(n))
	}
	return ports, nil
}

// Workdir returns the workers' working directory as the user named it, absolute:
// by its symlinks, so that a reload follows them. here is handoff's own.
func (r *Run) Workdir(here string) (string, error) {
	dir := r.WorkdirPath(here)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("cannot use --cwd %s: not a directory", dir)
	}
	return dir, nil
}

// WorkdirPath is Workdir, whether it is there or not.
func (r *Run) WorkdirPath(here string) string {
	if filepath.IsAbs(r.Dir) {
		return r.Dir
	}
	return filepath.Join(here, r.Dir)
}

var (
	scripts    = []string{".js", ".mjs", ".cjs"}
	typescript = []string{".ts", ".mts", ".cts"}
)

// Command turns the arguments of `handoff run` into a command line, and says at
// which index the script is, if a runtime was put before it or is there.
func Command(args []string, dir string) (command []string, script int, err error) {
	command, script, err = CommandLine(args, dir)
	if err != nil || script == 0 {
		return command, script, err
	}
	path := command[script]
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if info, err := os.Stat(path); err != nil {
		return nil, 0, fmt.Errorf("cannot run %s: no such file in %s", command[script], filepath.Dir(path))
	} else if info.IsDir() {
		return nil, 0, fmt.Errorf("cannot run %s: it is a directory", command[script])
	}
	return command, script, nil
}

// CommandLine is Command, whether the script is there or not.
func CommandLine(args []string, dir string) (command []string, script int, err error) {
	ext := filepath.Ext(args[0])
	switch {
	case slices.Contains(scripts, ext):
		command, script = append([]string{"node"}, args...), 1
	case slices.Contains(typescript, ext):
		flags, err := typescriptFlags()
		if err != nil {
			return nil, 0, fmt.Errorf("cannot run %s: %w", args[0], err)
		}
		command = append(append([]string{"node"}, flags...), args...)
		script = 1 + len(flags)
	case isNode(args[0]):
		return args, nodeScript(args, dir), nil
	default:
		return args, 0, nil
	}
	return command, script, nil
}

// nodeScript returns the index of the script in a command line of node's, or 0
// if there is none that is a file by that very name.
func nodeScript(args []string, dir string) int {
	// Node's options that take the next argument.
	takes := []string{"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions",
		"--env-file", "--env-file-if-exists", "--input-type", "--title", "--icu-data-dir", "--openssl-config",
		"--redirect-warnings", "--trace-event-categories", "--unhandled-rejections", "--dns-result-order",
		"--diagnostic-dir", "--disable-warning", "--watch-path", "--allow-fs-read", "--allow-fs-write"}
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-e", a == "--eval", a == "-p", a == "--print", a == "-":
			return 0
		case slices.Contains(takes, a):
			i++
		case strings.HasPrefix(a, "-") && a != "--":
		default:
			if a == "--" {
				if i++; i == len(args) {
					return 0
				}
			}
			path := args[i]
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return i
			}
			return 0
		}
	}
	return 0
}

func isNode(name string) bool {
	base := filepath.Base(name)
	return base == "node" || base == "nodejs"
}

// nodeTimeout is how long node may take to say what it can do.
const nodeTimeout = 5 * time.Second

// typescriptFlags asks the node at hand what it needs to run TypeScript.
func typescriptFlags() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "-p", "[process.versions.node, !!process.features.typescript].join()").Output()
	if err != nil {
		return nil, fmt.Errorf("node does not run: %w", err)
	}
	version, native, _ := strings.Cut(strings.TrimSpace(string(out)), ",")
	if native == "true" {
		return nil, nil
	}
	var major, minor int
	fmt.Sscanf(version, "%d.%d", &major, &minor)
	if major > 22 || major == 22 && minor >= 6 {
		return []string{"--experimental-strip-types"}, nil
	}
	return nil, fmt.Errorf("node %s does not run TypeScript; node 22.6 or later does, or run what your build makes of it", version)
}

// durationValue is a flag in Go's form, or a bare number of seconds.
type durationValue time.Duration

func duration(fs *pflag.FlagSet, p *time.Duration, name, usage string) {
	fs.Var((*durationValue)(p), name, usage)
}

func (d *durationValue) Set(s string) error {
	v, err := ParseDuration(s)
	*d = durationValue(v)
	return err
}

func (d *durationValue) Type() string { return "duration" }

func (d *durationValue) String() string {
	s := time.Duration(*d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// Auto is a duration that is found out.
const Auto time.Duration = -1

// autoValue is a duration, or auto.
type autoValue time.Duration

func (d *autoValue) Set(s string) error {
	if s == "auto" {
		*d = autoValue(Auto)
		return nil
	}
	v, err := ParseDuration(s)
	*d = autoValue(v)
	return err
}

func (d *autoValue) Type() string { return "duration" }

func (d *autoValue) String() string {
	if time.Duration(*d) == Auto {
		return "auto"
	}
	return (*durationValue)(d).String()
}

// readyDelay is for programs that listen before they have loaded: gunicorn without
// --preload. Node listens by what it has loaded.
const readyDelay = time.Second

// ReadyDelayOf is what auto comes to for a command line.
func (r *Run) ReadyDelayOf(command []string) time.Duration {
	switch {
	case r.ReadyDelay != Auto:
		return r.ReadyDelay
	case r.ContractOf(command) == "node":
		return 0
	}
	return readyDelay
}

// ParseDuration reads "1m30s", "250ms" or "90", which is seconds.
func ParseDuration(s string) (time.Duration, error) {
	const most = 1 << 53
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.ParseFloat(s, 64); nerr == nil {
		// What converting NaN, or too much, gives is the processor's choice:
		// NaN is 0 on arm64.
		if n *= float64(time.Second); !(n >= 0 && n <= most) {
			n = -1
		}
		d, err = time.Duration(n), nil
	}
	if err != nil || d < 0 || d > most {
		return 0, errors.New("want a duration like 500ms, 30s or 2m, or a number of seconds")
	}
	return d, nil
}

// choiceValue is a flag with a few possible words.
type choiceValue struct {
	p     *string
	words []string
}

func choice(fs *pflag.FlagSet, p *string, name, usage string, words ...string) {
	fs.Var(&choiceValue{p, words}, name, usage)
}

func (c *choiceValue) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.words, ", "))
	}
	*c.p = s
	return nil
}

func (c *choiceValue) Type() string   { return "word" }
func (c *choiceValue) String() string { return *c.p }
