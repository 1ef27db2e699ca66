package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"handoff/handoff"
	"handoff/internal/admin"
	"handoff/internal/config"
	"handoff/internal/logging"
	"handoff/internal/pidfile"
	"handoff/master"
	"handoff/master/fleet"
	"handoff/sdk/node"
)

func runCommand(code *int) *cobra.Command {
	cfg := config.NewRun()
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...] | run [flags] APP.js [ARG...]",
		Short: "Run a program and keep it running",
		Long: `Run N workers of a program, each on a listening socket that handoff holds.

A file ending in .js, .mjs, .cjs, .ts, .mts or .cts is run by node. No program needs a
change: in Node, server.listen(3000) gets a socket from handoff, as under its cluster module;
for any other program, bind and listen are answered by handoff (--contract).

Signals to handoff:
  USR2, HUP        reload: new workers start, take over when ready, old ones drain
  TERM, INT, QUIT  stop with drain; a second one stops at once
  TTIN, TTOU       one worker more, one fewer
  USR1             reopen --log-file

Each flag has an environment variable: --ready-timeout is HANDOFF_READY_TIMEOUT.
A duration is 500ms, 30s or 2m; a bare number is seconds.`,
		Example: `  handoff run server.js
  handoff run -n 4 --ready-when ready server.js --port 8080
  handoff run -n max-1 --balance sticky -- node --enable-source-maps dist/server.js
  handoff run -n 2 -- gunicorn app:app
  handoff run -- npm start
  handoff run --cwd /srv/current --env-file .env --pid-file /run/web.pid server.js`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := config.FromEnviron(c.Flags()); err != nil {
				return err
			}
			if len(args) == 0 {
				return errors.New("nothing to run: give a program, for example `handoff run server.js`")
			}
			if err := cfg.Check(); err != nil {
				return err
			}
			if cfg.Name != "" {
				if err := admin.CheckName(cfg.Name); err != nil {
					return fmt.Errorf("--name: %w", err)
				}
			}
			var err error
			*code, err = supervise(cfg, args)
			return err
		},
	}
	cfg.Flags(c.Flags())
	c.Flags().SortFlags = false
	c.Flags().SetInterspersed(false) // what follows the program is its own
	return c
}

func supervise(cfg *config.Run, args []string) (code int, err error) {
	dir, err := cfg.Workdir()
	if err != nil {
		return 0, failed{err}
	}
	command, script, err := config.Command(args, dir)
	if err != nil {
		return 0, failed{err}
	}
	name := cfg.Name
	if name == "" {
		name = admin.Clean(strings.TrimSuffix(filepath.Base(command[script]), filepath.Ext(command[script])))
	}
	log, err := logging.New(cfg.Log, cfg.Level(), cfg.LogFile, name)
	if err != nil {
		return 0, failed{fmt.Errorf("cannot open the log file: %w", err)}
	}
	slots, err := cfg.Slots()
	if err != nil {
		return 0, err
	}
	contract := cfg.ContractOf(command)
	var listens []master.Listen
	parsed, err := cfg.Listens(dir)
	if err != nil {
		return 0, err
	}
	for _, l := range parsed {
		listens = append(listens, master.Listen(l))
	}
	passed, err := handoff.Passed(os.Getenv)
	if err != nil {
		return 0, failed{err}
	}
	signal, err := cfg.Signal()
	if err != nil {
		return 0, err
	}
	hold, err := cfg.Holds()
	if err != nil {
		return 0, err
	}
	if cfg.PIDFile != "" {
		remove, err := pidfile.Write(cfg.PIDFile)
		if err != nil {
			return 0, failed{err}
		}
		defer remove()
	}
	lean()
	log.Info("handoff runs "+strings.Join(args, " "), "event", "cluster.starting", "pid", os.Getpid(),
		"workers", slots, "version", version)
	defer log.Flush()
	return master.Run(master.Config{
		Name: name, Version: version, PID: os.Getpid(), Control: control(name, log.Logger),
		Fleet: fleet.Config{
			Slots: slots, ReadyTimeout: cfg.ReadyTimeout, QuietTimeout: cfg.QuietTimeout,
			DrainTimeout: cfg.DrainTimeout, KillGrace: cfg.KillGrace, DrainedGrace: drainedGrace,
			Respawn: cfg.Respawn, Backoff: cfg.Backoff, Stable: cfg.Backoff, MaxFailures: cfg.MaxFailures,
			Strategy: map[string]fleet.Strategy{"all": fleet.All, "slot": fleet.Slot}[cfg.Strategy],
			Surge:    cfg.Surge, Canary: cfg.Canary, Watchdog: cfg.Watchdog, DrainSpread: cfg.DrainSpread,
		},
		Command: master.Command{
			Args: command, Script: script, Dir: dir, Env: os.Environ(), EnvFile: cfg.EnvFile, Set: cfg.Env,
		},
		SlotsMost:   cfg.SlotsMost(),
		Contract:    master.Contract(contract),
		Listen:      listens,
		Passed:      passed,
		DrainSignal: signal,
		Hold:        hold,
		ReadyWhen:   master.ReadyWhen(cfg.ReadyWhen),
		Balance:     map[string]handoff.Balance{"even": handoff.Even, "sticky": handoff.Sticky, "shared": handoff.Shared}[cfg.Balance],
		QuietGrace:  min(quietGrace, cfg.QuietTimeout),
		NoSteering:  cfg.NoSteering,
		Environ:     environ(cfg, command, log.Logger),
		Log:         log.Logger,
		Reopen:      log.Reopen,
		Stderr:      os.Stderr,
	}), nil
}

const (
	quietGrace   = 100 * time.Millisecond // for a program to take note of what it has accepted
	drainedGrace = 2 * time.Second        // for the exit, after the last connection has ended
)

// environ returns what is added to a worker's environment: what the Go SDK, or
// any program, may want to know of the drain, and the drain preload for Node.
func environ(cfg *config.Run, command []string, log *slog.Logger) func([]string) []string {
	load := preload(cfg, command, log)
	return func(env []string) []string {
		env = append(slices.Clone(env), "HANDOFF_DRAIN_SIGNAL="+cfg.DrainSignal, "HANDOFF_KEEPALIVE_LINGER="+cfg.Linger.String())
		if load != nil {
			env = load(env)
		}
		return env
	}
}

// control opens the control socket. A service without one still serves.
func control(name string, log *slog.Logger) func(master.Control) func() {
	return func(c master.Control) func() {
		l, err := admin.Listen(name)
		if err != nil {
			log.Warn(err.Error()+"; `handoff status` will not find this one. Set HANDOFF_RUNTIME_DIR to a folder of this user", "event", "control.missing")
			return func() {}
		}
		return admin.Serve(l, c, log)
	}
}

// preload returns what adds the drain preload to a worker's environment. The file
// is looked for at each start: whoever deletes it deletes it for one moment.
func preload(cfg *config.Run, command []string, log *slog.Logger) func([]string) []string {
	if cfg.NoPreload {
		return nil
	}
	warned := false
	return func(env []string) []string {
		path, err := node.Install()
		if err != nil {
			if !warned {
				log.Warn(err.Error()+"; keep-alive clients may lose a request at a reload. Set HANDOFF_STATE_DIR to a folder that can be written to", "event", "preload.missing")
				warned = true
			}
			return env
		}
		if cfg.ContractOf(command) != "node" {
			env = node.EnvironBehind(env, path, cfg.DrainSignal, cfg.Linger)
			if self, err := os.Executable(); err == nil && cfg.ReadyWhen == "ready" {
				env = append(env, node.NotifyVariable+"="+self)
			}
			return env
		}
		return node.Environ(env, command, path, cfg.Linger)
	}
}

// lean keeps the master small: it allocates little, so that collecting often
// costs nothing.
func lean() {
	debug.SetGCPercent(20)
	debug.FreeOSMemory()
}
