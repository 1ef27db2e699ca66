package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"handoff/internal/watch"
)

// Check finds wrong values and combinations that the flags' types allow.
func (r *Run) Check() error {
	for _, check := range []func() error{r.checkValues, r.checkNumbers, r.checkCombinations, r.checkEnv} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkValues parses the values that are parsed again later.
func (r *Run) checkValues() error {
	for _, parse := range []func() error{
		func() error { _, err := r.Slots(); return err },
		func() error { _, err := r.PortNumbers(); return err },
		func() error { _, err := r.Signal(); return err },
		func() error { _, err := r.Holds(); return err },
		func() error { _, err := r.MayDrops(); return err },
		func() error { _, err := r.Listens("/"); return err },
		func() error { _, err := r.Conditions(); return err },
		func() error { _, err := r.MaxMemoryBytes(); return err },
		func() error { _, err := r.HookCommands(); return err },
		r.checkHealth,
	} {
		if err := parse(); err != nil {
			return err
		}
	}
	if err := watch.Check(append(slices.Clone(r.Watch), r.WatchIgnore...)); err != nil {
		return fmt.Errorf("--watch: %w", err)
	}
	return nil
}

func (r *Run) checkNumbers() error {
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"ready-timeout", r.ReadyTimeout}, {"respawn", r.Respawn}, {"backoff", r.Backoff}, {"upgrade-timeout", r.UpgradeTimeout}, {"hook-timeout", r.HookTimeout}} {
		if d.value <= 0 {
			return fmt.Errorf("--%s must be greater than 0", d.flag)
		}
	}
	switch {
	case r.MaxFailures < 1:
		return errors.New("--max-failures must be at least 1")
	case r.Surge < 0:
		return errors.New("--surge must not be negative")
	case r.MaxRequests < 0:
		return errors.New("--max-requests must not be negative")
	case r.WebsocketClose != 0 && (r.WebsocketClose < 1000 || r.WebsocketClose > 4999):
		return fmt.Errorf("--websocket-close %d: want a code from 1000 to 4999, like 1012", r.WebsocketClose)
	}
	return nil
}

func (r *Run) checkCombinations() error {
	switch {
	case r.Backoff < r.Respawn:
		return fmt.Errorf("--backoff (%v) must not be less than --respawn (%v)", r.Backoff, r.Respawn)
	case r.Contract == "activation" && len(r.Listen) == 0:
		return errors.New("--contract activation requires at least one --listen ADDR: those are the sockets that workers get")
	case r.LogPrefix && r.Capture != "none" && r.Capture != "prefix":
		return fmt.Errorf("--log-prefix and --capture %s exclude each other", r.Capture)
	}
	return nil
}

// checkEnv does not print values: they may be secrets.
func (r *Run) checkEnv() error {
	for _, kv := range r.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return fmt.Errorf("--env %q: want KEY=VALUE", k)
		}
	}
	return nil
}
