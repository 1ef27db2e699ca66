package service

import (
	"fmt"
	"maps"
	"slices"

	"handoff/internal/config"
)

// fixed has the values of the keys that a running handoff cannot change.
func fixed(cfg *config.Run) map[string]string {
	return map[string]string{
		"contract": cfg.Contract, "balance": fixedBalance(cfg), "listen": fmt.Sprint(cfg.Listen), "name": cfg.Name, "pid_file": cfg.PIDFile,
		"admin": cfg.Admin, "admin_token_file": cfg.AdminToken,
		"capture": fmt.Sprint(cfg.LogPrefix, cfg.Capture, cfg.CaptureDir), "pdeathsig": cfg.Death,
		"log": cfg.Log, "log_file": cfg.LogFile, "upgrade_timeout": cfg.UpgradeTimeout.String(),
	}
}

// fixedBalance distinguishes the kinds of sockets: even and sticky can be exchanged.
func fixedBalance(cfg *config.Run) string {
	if cfg.Balance == "shared" {
		return cfg.Balance
	}
	return ""
}

// Fixed finds changes of the configuration that require a restart of handoff.
type Fixed struct {
	was  map[string]string
	said map[string]string // by key: the last reported value
	cfg  config.Run        // the effective values
}

// NewFixed returns the Fixed of a master with the configuration cfg.
func NewFixed(cfg *config.Run) *Fixed {
	return &Fixed{was: fixed(cfg), said: map[string]string{}, cfg: *cfg}
}

// Keep takes a reread configuration: it restores the values that cannot change, as far as
// Live uses them, and names each key that requires a restart, once per value. The change
// is in effect when Live was made from it: see Took.
func (f *Fixed) Keep(cfg *config.Run) (later []string) {
	now := fixed(cfg)
	for _, key := range slices.Sorted(maps.Keys(f.was)) {
		if now[key] != f.was[key] && f.said[key] != now[key] {
			f.said[key] = now[key]
			later = append(later, key)
		}
	}
	cfg.Contract, cfg.Death = f.cfg.Contract, f.cfg.Death
	if fixedBalance(cfg) != fixedBalance(&f.cfg) {
		cfg.Balance = f.cfg.Balance
	}
	return later
}

// Took records that a configuration that Keep has seen is in effect.
func (f *Fixed) Took(cfg *config.Run) { f.cfg.Balance = cfg.Balance }
