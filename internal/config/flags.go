package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Run is the configuration of `handoff run`. NewRun returns the defaults.
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
	Overlap        string
	Surge          int
	Canary         time.Duration
	Balance        string
	Contract       string
	DrainSignal    string
	HoldOnly       []string
	NoHold         []string
	Allow          []string
	MayDrop        []string
	Listen         []string
	Watchdog       time.Duration
	DrainSpread    time.Duration
	UpgradeTimeout time.Duration
	Linger         time.Duration
	KeepConns      string // whose connections are kept
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
	Health         Health
	WebsocketClose int
	DryRun         bool
	Private        bool // do not use what other services with the same configuration use
	RackVersion    string
	SlotVariable   string
	DrainMessage   string
	Only           string // of PM2's file
	PM2Env         string
	Embedded       bool   // started by the Node SDK
	Config         string // the file; "": handoff.toml, if it is there
	TrustConfig    bool   // regardless of who can write the file
	EnvFileAsUser  bool   // EnvFile is read with the rights of the workers' user, who has named it
}

// Defaults of a stop: below the limit of a container's runtime (Docker: 10 s).
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
		Strategy: "all", Overlap: "full", Balance: "even", Contract: "auto", DrainSignal: AutoSignal, Linger: 6 * time.Second, KeepConns: "local", UpgradeTimeout: 15 * time.Second, WatchDelay: time.Second,
		Health: healthDefaults(), Capture: "none", CaptureDir: "logs", HookTimeout: 30 * time.Second,
		Log: "auto", LogLevel: "info",
	}
	if InContainer() {
		r.DrainTimeout, r.KillGrace = drainTimeoutContainer, killGraceContainer
	}
	return r
}

// Flags adds the flags to fs, in the order of the help.
func (r *Run) Flags(fs *pflag.FlagSet) {
	fs.StringVarP(&r.Config, "config", "c", "", "configuration `file` (default: handoff.toml if present); flags and environment variables override it")
	fs.BoolVar(&r.TrustConfig, "trust-config", false, "as root, use a configuration file that another user can write, as if it were root's")
	r.workerFlags(fs)
	r.reloadFlags(fs)
	r.socketFlags(fs)
	r.drainFlags(fs)
	r.Health.flags(fs)
	r.serviceFlags(fs)
	r.watchFlags(fs)
	r.recycleFlags(fs)
	r.outputFlags(fs)
	r.startFlags(fs)
	r.otherFlags(fs)
	r.hiddenFlags(fs)
}

func (r *Run) workerFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&r.Workers, "workers", "n", r.Workers, "`number` of workers: 4, max (one per usable CPU), max-1")
	fs.StringSliceVar(&r.Ports, "ports", nil, "one `port` per worker: slot 0 gets the first as PORT and port in its environment, and so on; this also sets the number of workers")
	choice(fs, &r.ReadyWhen, "ready-when", "when a worker is ready: listening (on its addresses), started (booted), ready (process.send('ready') or READY=1)", "listening", "started", "ready")
	duration(fs, &r.ReadyTimeout, "ready-timeout", "longest start; a reload fails after it")
	fs.Var((*autoValue)(&r.ReadyDelay), "ready-delay", "in a reload, how long a listening worker must keep running before it serves, unless --ready-when ready; auto: 1s, for Node 0")
	duration(fs, &r.DrainTimeout, "drain-timeout", "longest drain, then SIGTERM (30s; in a container 8s)")
	duration(fs, &r.KillGrace, "kill-grace", "time from SIGTERM to SIGKILL (5s; in a container 1s)")
	duration(fs, &r.QuietTimeout, "quiet-timeout", "before a drain, longest wait for connections in flight")
	duration(fs, &r.Respawn, "respawn", "minimum time between two starts of a failing worker")
	duration(fs, &r.Backoff, "backoff", "maximum time between them; it doubles up to this and resets after the worker has served this long")
}

func (r *Run) reloadFlags(fs *pflag.FlagSet) {
	fs.IntVar(&r.MaxFailures, "max-failures", r.MaxFailures, "consecutive failed starts of a worker before a new generation fails")
	choice(fs, &r.Strategy, "strategy", "how a reload switches: all (at once, when every new worker is ready) or slot (one by one)", "all", "slot")
	choice(fs, &r.Overlap, "overlap", "when the next worker of a slot starts: full (while the old one serves) or none (when it has ended, and new connections wait meanwhile, refused to nobody; slot by slot; if the first start fails, the old program is started again): for programs with a pid file, a lock or state that only one process can have", "full", "none")
	fs.IntVar(&r.Surge, "surge", r.Surge, "`workers` started at once in a reload; 0: all (with --strategy slot or --overlap none: one)")
	fs.StringArrayVar(&r.MayDrop, "may-drop", nil, "a reload may end this `address`, on which the running generation accepts; without it a new worker is ready only when it accepts on every one: 9090, 127.0.0.1:9090, 9000-9010, /run/web.sock (may be repeated)")
	duration(fs, &r.Canary, "canary", "in a reload, let one new worker serve alone this long first; if it fails, the reload fails")
}

func (r *Run) socketFlags(fs *pflag.FlagSet) {
	choice(fs, &r.Balance, "balance", "how connections are distributed: even, sticky (by client address), shared (one socket for all)", "even", "sticky", "shared")
	choice(fs, &r.Contract, "contract", "how workers get their sockets: node (Node's cluster channel), bind (any program), activation (only those of --listen), auto (node for Node, else bind)", "auto", "node", "bind", "activation")
	fs.StringVar(&r.DrainSignal, "drain-signal", r.DrainSignal, "`signal` that tells a program to drain under the bind contract; auto: TERM, but for programs that are known to need another (nginx: QUIT, uWSGI: INT; handoff check says which); under the node contract, the program's listeners for a signal other than TERM are called")
	fs.StringArrayVar(&r.HoldOnly, "hold", nil, "under the bind contract, hold only this `address`: 8000, 127.0.0.1:8000, 8000-8010 (may be repeated; default: every TCP and UDP address); 0: also the ports that the kernel chooses, which are each worker's own without it")
	fs.StringArrayVar(&r.NoHold, "no-hold", nil, "do not hold this `address`, for example a debug port (may be repeated)")
	fs.StringArrayVar(&r.Allow, "allow", nil, "with --user, let workers listen on this privileged `address`: 80, 127.0.0.1:80, 80-89 (may be repeated)")
	fs.StringArrayVar(&r.Listen, "listen", nil, "listen on `[NAME=]ADDR` and pass the socket to each worker as systemd does (LISTEN_FDS): 8000, 127.0.0.1:8000, tcp6:8000, unix:/path,mode=660,owner=USER:GROUP (may be repeated)")
	duration(fs, &r.Watchdog, "watchdog", "replace a worker that sends no WATCHDOG=1 to its NOTIFY_SOCKET for this long; 0: never")
}

func (r *Run) drainFlags(fs *pflag.FlagSet) {
	duration(fs, &r.DrainSpread, "drain-spread", "spread the drains of a reload over this time, for programs with long-lived connections")
	duration(fs, &r.UpgradeTimeout, "upgrade-timeout", "how long a new handoff binary may take to take over before the old one continues")
	duration(fs, &r.Linger, "keepalive-linger", "in a drain, how long idle keep-alive connections may still send a request")
	choice(fs, &r.KeepConns, "keep-connections", "in a drain, let the new workers answer the next request on an idle HTTP/1 connection that the program closes, with Connection: close: for clients on this machine, like a proxy (local; the program sees the same address of the client as before), for all (the program sees an address of this machine instead of the client's), or off; not under the node contract", "local", "all", "off")
	fs.IntVar(&r.WebsocketClose, "websocket-close", r.WebsocketClose, "in a drain, close the websockets of Node programs with this `code`: 1001 (going away), 1012 (restart), spread over --drain-spread; 0: leave them to the program")
	fs.BoolVar(&r.NoPreload, "no-preload", r.NoPreload, "do not load the drain preload into Node programs")
}

func (r *Run) serviceFlags(fs *pflag.FlagSet) {
	fs.StringVar(&r.PIDFile, "pid-file", r.PIDFile, "write the pid to `file`, and remove it at exit")
	fs.StringVar(&r.Name, "name", r.Name, "`name` of the service in logs and commands (default: the program's)")
	fs.StringVar(&r.Dir, "cwd", r.Dir, "working `dir` of the workers; a symlink is resolved again at each reload (default: the current one)")
	fs.StringArrayVar(&r.Env, "env", r.Env, "`K=V` in the environment of the workers (may be repeated)")
	fs.StringVar(&r.EnvFile, "env-file", r.EnvFile, "`file` of K=V lines, read again at each reload")
	choice(fs, &r.Log, "log", "format of handoff's own log: text, json, auto (text on a terminal), rackman (RackMan's wording)", "auto", "text", "json", "rackman")
	choice(fs, &r.LogLevel, "log-level", "minimum level to log", "debug", "info", "warn", "error")
	fs.StringVar(&r.LogFile, "log-file", r.LogFile, "log to `file` instead of stderr; SIGUSR1 reopens it")
}

func (r *Run) watchFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&r.Watch, "watch", nil, "reload when a file matching this `glob` changes, relative to --cwd or absolute: '**/*.js', '!**/*.test.js', a directory (everything below it), ../shared, /etc/web (may be repeated); the configuration file is then watched, too")
	fs.StringArrayVar(&r.WatchIgnore, "watch-ignore", nil, "ignore what matches this `glob`, besides node_modules and names that begin with a dot (may be repeated)")
	duration(fs, &r.WatchDelay, "watch-delay", "how long files must stay unchanged before a reload")
	fs.StringVar(&r.Admin, "admin", r.Admin, "serve /livez, /readyz and /metrics on `HOST:PORT`, read-only; outside loopback this requires --admin-token-file")
	fs.StringVar(&r.AdminToken, "admin-token-file", r.AdminToken, "`file` with the bearer token that --admin requires")
}

func (r *Run) recycleFlags(fs *pflag.FlagSet) {
	duration(fs, &r.MaxAge, "max-age", "replace a worker after serving this long, up to a tenth earlier, one at a time; 0: never")
	fs.StringVar(&r.MaxMemory, "max-memory", r.MaxMemory, "replace a worker whose process group has more than this `size` resident, 512M or 1.5G, one at a time")
	fs.IntVar(&r.MaxRequests, "max-requests", r.MaxRequests, "replace a worker after this many `requests`, up to a tenth earlier, where it reports them (Node's http with the preload, the Go SDK); 0: never")
	duration(fs, &r.ReloadEvery, "reload-every", "reload automatically this long after the last reload; 0: never")
	duration(fs, &r.StallKill, "stall-kill", "replace a worker that has accepted nothing for this long, while connections wait for it and none for others; 0: only log it")
}

func (r *Run) outputFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&r.Hooks, "hook", nil, "run a shell command at an event, `EVENT=COMMAND`: worker.crashed='mail -s crash root'; before_reload and before_ready can refuse (may be repeated; see handoff help hooks)")
	duration(fs, &r.HookTimeout, "hook-timeout", "how long a hook may run before it is killed")
	fs.BoolVar(&r.LogPrefix, "log-prefix", r.LogPrefix, "prefix each line that a worker writes with its name: web.0 | line (the same as --capture prefix)")
	choice(fs, &r.Capture, "capture", "what to do with the output of workers: none (it is passed on as it is), prefix, json, files (one for each slot, reopened by SIGUSR1)", "none", "prefix", "json", "files")
	fs.StringVar(&r.CaptureDir, "capture-dir", r.CaptureDir, "`dir` of --capture files, relative to where handoff was started")
}

func (r *Run) startFlags(fs *pflag.FlagSet) {
	fs.StringVar(&r.User, "user", r.User, "run workers as `USER[:GROUP]`, with the user's supplementary groups; requires root")
	fs.StringVar(&r.Group, "group", r.Group, "run workers as `GROUP`")
	fs.StringVar(&r.Umask, "umask", r.Umask, "`mask` of the permissions of files that workers create: 027")
	fs.StringVar(&r.Nice, "nice", r.Nice, "priority of workers, a `number` from -20 (highest) to 19 (lowest)")
	fs.StringArrayVar(&r.Limits, "rlimit", nil, "resource limit of workers, `NAME=SOFT[:HARD]`: nofile=65536, core=0, as=2147483648 (may be repeated)")
	fs.StringVar(&r.CPUs, "cpu-affinity", r.CPUs, "pin each worker to a CPU of this `list`, 0-3,6 or auto: slot 0 to the first, slot 1 to the second, and so on, over and over")
	fs.StringVar(&r.Cgroup, "cgroup", r.Cgroup, "put workers into this cgroup, a `name` below handoff's own where that is delegated, or /path from the root (version 2)")
	fs.StringVar(&r.Death, "pdeathsig", r.Death, "`signal` that workers get when their master ends for any reason; by default they outlive it, and nothing is lost")
}

func (r *Run) otherFlags(fs *pflag.FlagSet) {
	fs.StringVar(&r.SlotVariable, "slot-variable", r.SlotVariable, "additional `name` for a worker's slot in its environment, besides WORKER_ID: NODE_APP_INSTANCE")
	fs.StringVar(&r.DrainMessage, "drain-message", r.DrainMessage, "in a drain, also send Node programs this `message` (process.on('message')): shutdown")
	fs.StringVar(&r.Only, "only", r.Only, "`name` of the app in a PM2 ecosystem file")
	fs.StringVar(&r.PM2Env, "pm2-env", r.PM2Env, "in a PM2 ecosystem file, put env_`NAME` over env")
}

// hiddenFlags are for other parts of handoff, and for its tests.
func (r *Run) hiddenFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&r.NoSteering, "no-steering", false, "do not use the kernel's steering program")
	fs.BoolVar(&r.Embedded, "embedded", false, "end with the parent process, retry the first generation without limit, report worker events, and read a configuration file only if one is named")
	fs.StringVar(&r.RackVersion, "rack-version", "", "in a RackMan folder, run this `version`, whichever is live")
	fs.BoolVar(&r.DryRun, "scratch", false, "dry run: replace every address by a free one on loopback")
	fs.BoolVar(&r.Private, "private", false, "do not use what other services with the same configuration use: pid file, log files, --admin, hooks, watched files")
	for _, name := range []string{"no-steering", "embedded", "rack-version", "scratch", "private"} {
		fs.MarkHidden(name)
	}
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return "HANDOFF_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FromEnviron sets the flags that are not on the command line from their variables.
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
