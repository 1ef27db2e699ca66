// Package config turns flags and environment variables into what the master
// runs by.
package config

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"handoff/internal/cpus"
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
	Only           string // of PM2's file
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

// Slots returns the number of workers.
func (r *Run) Slots() (int, error) {
	if len(r.Ports) > 0 {
		if n, err := strconv.Atoi(r.Workers); r.Workers != "max" && (err != nil || n != len(r.Ports)) {
			return 0, fmt.Errorf("--workers %s and %d --ports: leave out --workers, there is one worker per port", r.Workers, len(r.Ports))
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
	if most := r.MaxSlots(); n > most {
		return 0, fmt.Errorf("%d workers: at most %d are supported with --balance %s", n, most, r.Balance)
	}
	return n, nil
}

// MaxSlots is how many workers the kernel's program can steer to: it has at
// most 4096 instructions, two for each slot of a random choice, ten of a sticky one.
func (r *Run) MaxSlots() int {
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

// PortNumbers returns the ports of the slots, nil if they have none.
func (r *Run) PortNumbers() (ports []int, err error) {
	for _, text := range r.Ports {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("invalid --ports %q: want numbers from 1 to 65535, like 3000,3001", text)
		}
		if slices.Contains(ports, int(n)) {
			return nil, fmt.Errorf("invalid --ports: %d is given twice", n)
		}
		ports = append(ports, int(n))
	}
	return ports, nil
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
