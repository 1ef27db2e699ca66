package service

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"handoff/handoff"
	"handoff/internal/config"
	"handoff/internal/events"
	"handoff/internal/linux"
	"handoff/internal/takeover"
	"handoff/master"
	"handoff/master/fleet"
	"handoff/master/process"
	"handoff/sdk/node"
)

const (
	quietGrace   = 100 * time.Millisecond // for a program to take note of what it has accepted
	drainedGrace = 2 * time.Second        // for the exit, after the last connection has ended
)

// World is the environment in which a configuration is applied.
type World struct {
	Environ []string                      // handoff's own environment
	Binary  string                        // path of handoff, for programs that call it; "": not known
	Preload func(uid int) (string, error) // stores the drain preload where the workers' user can read it, and returns where; called at each start of a worker
	Log     *slog.Logger
}

// ThisWorld is the World of this process.
func ThisWorld(log *slog.Logger) World {
	self, _ := os.Executable()
	return World{Environ: os.Environ(), Binary: self, Preload: node.Install, Log: log}
}

// Live returns the part of a configuration that can change while a master runs.
func Live(cfg *config.Run, p Program, w World) (live master.Live, err error) {
	live = master.Live{
		Fleet: fleet.Config{
			ReadyTimeout: cfg.ReadyTimeout, ReadyDelay: cfg.ReadyDelayOf(p.Command()), QuietTimeout: cfg.QuietTimeout,
			DrainTimeout: cfg.DrainTimeout, KillGrace: cfg.KillGrace, DrainedGrace: drainedGrace,
			Respawn: cfg.Respawn, Backoff: cfg.Backoff, Stable: cfg.Backoff, MaxFailures: cfg.MaxFailures,
			Strategy: strategies()[cfg.Strategy], Surge: cfg.Surge, Canary: cfg.Canary, NoOverlap: cfg.Overlap == "none",
			Watchdog: cfg.Watchdog, DrainSpread: cfg.DrainSpread,
			MaxAge: cfg.MaxAge, ReloadEvery: cfg.ReloadEvery, RetryFirst: cfg.Embedded,
		},
		Command: process.Command{
			Args: p.Command(), Script: p.Script, Dir: string(p.Dir), Env: workerEnviron(cfg, w.Environ), EnvFile: cfg.EnvFile, Set: cfg.Env,
		},
		DrainMessage: cfg.DrainMessage, SlotVariable: cfg.SlotVariable, ReadyWhen: master.ReadyWhen(cfg.ReadyWhen),
		QuietGrace: min(quietGrace, cfg.QuietTimeout), KeepConnections: takeover.Peers(cfg.KeepConns), Linger: linger(cfg),
		MaxSlots: cfg.MaxSlots(), Balance: balances()[cfg.Balance], MaxRequests: cfg.MaxRequests, StallKill: cfg.StallKill,
	}
	if cfg.EnvFileAsUser {
		c, err := cfg.Conditions()
		if err != nil {
			return master.Live{}, err
		}
		if c.User != nil {
			live.Command.EnvUser = &linux.User{UID: c.User.UID, GID: c.User.GID, Groups: c.User.Groups}
		}
	}
	var signal config.DrainSignal
	for _, parse := range []func() error{
		func() (err error) { live.Fleet.Slots, err = cfg.Slots(); return err },
		func() (err error) { signal, err = drain(cfg, live.Command); return err },
		func() (err error) { live.Ports, err = cfg.PortNumbers(); return err },
		func() (err error) { live.Conditions, err = cfg.Conditions(); return err },
		func() (err error) { live.MaxMemory, err = cfg.MaxMemoryBytes(); return err },
		func() (err error) { live.Holds, err = cfg.Holds(); return err },
		func() (err error) { live.Allow, err = cfg.Allows(); return err },
		func() (err error) { live.MayDrop, err = cfg.MayDrops(); return err },
		func() (err error) { live.Program, err = p.Encode(); return err },
	} {
		if err := parse(); err != nil {
			return master.Live{}, err
		}
	}
	live.DrainSignal, live.DrainReason = signal.Signal, signal.Why
	live.Environ = environ(cfg, p.Command(), signal, w)
	return live, nil
}

// drain returns the drain signal. What the program is called is known from its file, if
// that can be found now: a start finds it again, or fails.
func drain(cfg *config.Run, program process.Command) (config.DrainSignal, error) {
	command, path := program.Args, ""
	program.Args, program.Script = config.ProgramOf(command), 0
	if l, err := program.Resolve(); err == nil {
		path = l.Path
	}
	return cfg.DrainSignalOf(command, path)
}

func strategies() map[string]fleet.Strategy {
	return map[string]fleet.Strategy{"all": fleet.All, "slot": fleet.Slot}
}

func balances() map[string]handoff.Balance {
	return map[string]handoff.Balance{"even": handoff.Even, "sticky": handoff.Sticky, "shared": handoff.Shared}
}

// workerEnviron is handoff's own environment, and what a login gives the user of
// --user.
func workerEnviron(cfg *config.Run, environ []string) []string {
	env := slices.Clone(environ)
	for _, kv := range cfg.Start.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		env = append(slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") }), kv)
	}
	return env
}

// environ returns what is added to a worker's environment: what the Go SDK, or any
// program, may want to know of the drain, and the drain preload for Node.
func environ(cfg *config.Run, command []string, signal config.DrainSignal, w World) func([]string) []string {
	load := preload(cfg, command, signal.Name(), w)
	behind := cfg.ContractOf(command) != "node"
	return func(env []string) []string {
		env = append(slices.Clone(env), "HANDOFF_DRAIN_SIGNAL="+signal.Name(), "HANDOFF_KEEPALIVE_LINGER="+linger(cfg).String())
		for _, kv := range signal.Env {
			if name, _, _ := strings.Cut(kv, "="); linux.Lookup(env, name) == "" {
				env = append(env, kv)
			}
		}
		if behind && w.Binary != "" {
			env = append(env, node.NotifyVariable+"="+w.Binary)
		}
		return load(env)
	}
}

// preload returns what adds the drain preload to a worker's environment. The file is
// checked at each start, and written again if it was deleted.
func preload(cfg *config.Run, command []string, signal string, w World) func([]string) []string {
	if cfg.NoPreload {
		return func(env []string) []string { return env }
	}
	warned := false
	uid := os.Geteuid()
	if c, err := cfg.Conditions(); err == nil && c.User != nil {
		uid = c.User.UID
	}
	drain := node.Drain{Linger: linger(cfg), Websocket: cfg.WebsocketClose, Spread: cfg.DrainSpread}
	if signal != "TERM" {
		drain.Emit = signal
	}
	return func(env []string) []string {
		path, err := w.Preload(uid)
		if err != nil {
			if !warned {
				w.Log.Warn(err.Error()+"; keep-alive clients can lose a request during a reload. Set HANDOFF_STATE_DIR to a writable directory", "event", events.PreloadMissing)
				warned = true
			}
			return env
		}
		if cfg.ContractOf(command) != "node" {
			drain.SayReady = cfg.ReadyWhen == "ready"
			return node.EnvironBehind(env, path, signal, drain)
		}
		return node.Environ(env, command, path, drain)
	}
}

// linger is how long idle connections may stay in a drain. At the drain timeout they
// would be cut, so that it is at most three quarters of that.
func linger(cfg *config.Run) time.Duration {
	if cfg.DrainTimeout <= 0 {
		return cfg.Linger
	}
	return min(cfg.Linger, cfg.DrainTimeout*3/4)
}
