// Package config has the configuration of a service: flags, environment variables and the
// configuration file.
package config

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"handoff/internal/cpus"
)

// InContainer guesses whether this process runs in a container.
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
			return min(n, r.MaxSlots()), nil
		}
		less, err := strconv.Atoi(text)
		if err != nil || less > 0 {
			return 0, fmt.Errorf("invalid number of workers %q: want a number, max, or max-1", r.Workers)
		}
		return min(max(n+less, 1), r.MaxSlots()), nil
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

// MaxSlots is how many workers the kernel's program can steer to: it has at most 4096
// instructions, two per slot of a random choice, ten of a sticky one.
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
	seen := map[int]bool{}
	for _, text := range r.Ports {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("invalid --ports %q: want numbers from 1 to 65535, like 3000,3001", text)
		}
		if seen[int(n)] {
			return nil, fmt.Errorf("invalid --ports: %d is given twice", n)
		}
		seen[int(n)] = true
		ports = append(ports, int(n))
	}
	return ports, nil
}

// readyDelay is for programs that listen before they have loaded, such as gunicorn
// without --preload. Node listens after it has loaded.
const readyDelay = time.Second

// ReadyDelayOf is the value of auto for a command line.
func (r *Run) ReadyDelayOf(command []string) time.Duration {
	switch {
	case r.ReadyDelay != Auto:
		return r.ReadyDelay
	case r.ContractOf(command) == "node":
		return 0
	}
	return readyDelay
}
