package config

import (
	"fmt"
	"slices"
	"strings"
)

// harmless are the keys by which root does nothing that the workers' user could not do
// itself: what they say is of the workers alone, or a number. The others have root run a
// command, write a file, open a port, or give workers more than their user has.
var harmless = []string{
	"command", "workers", "ports", "ready_when", "ready_timeout", "ready_delay", "drain_timeout", "kill_grace", "quiet_timeout", "respawn", "backoff",
	"max_failures", "may_drop", "strategy", "overlap", "surge", "canary", "balance", "contract", "drain_signal", "hold", "no_hold", "watchdog", "drain_spread",
	"keepalive_linger", "keep_connections", "websocket_close", "no_preload", "name", "cwd", "env", "env_file", "log", "log_level", "watch", "watch_ignore", "watch_delay",
	"health_address", "health_host", "health_header", "health_status", "health_body", "health_interval", "health_timeout", "health_rise", "health_fall", "health_start_period",
	"max_age", "max_memory", "max_requests", "reload_every", "stall_kill", "hook_timeout", "log_prefix", "capture", "umask", "cpu_affinity",
	"pdeathsig", "upgrade_timeout", "slot_variable", "drain_message",
}

// CheckHarmless finds a key that root does not take from a file that the workers' user can
// write.
func (f *File) CheckHarmless() error {
	for _, v := range f.values {
		if !slices.Contains(harmless, v.key) {
			return fmt.Errorf("%s:%d:%d: %s: the workers' user can write this file, and root takes this key only from a file that nobody else can write: chown root %s, or say it on the command line (--%s)",
				f.Path, v.at.Line, v.at.Column, v.key, f.Path, v.flag)
		}
	}
	return nil
}

// Has reports whether a key is there.
func (f *File) Has(key string) bool {
	return slices.ContainsFunc(f.values, func(v value) bool { return v.key == key && strings.Join(v.words, "") != "" })
}
