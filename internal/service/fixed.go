package service

import (
	"fmt"
	"maps"
	"slices"

	"handoff/internal/config"
)

// fixed are the keys that a running handoff cannot change, as they are.
func fixed(cfg *config.Run) map[string]string {
	return map[string]string{
		"contract": cfg.Contract, "balance": fixedBalance(cfg), "listen": fmt.Sprint(cfg.Listen), "name": cfg.Name, "pid_file": cfg.PIDFile,
		"admin": cfg.Admin, "admin_token_file": cfg.AdminToken,
		"capture": fmt.Sprint(cfg.LogPrefix, cfg.Capture, cfg.CaptureDir), "pdeathsig": cfg.Death,
		"log": cfg.Log, "log_file": cfg.LogFile, "upgrade_timeout": cfg.UpgradeTimeout.String(),
	}
}

// fixedBalance tells the kinds of sockets apart: what is not shared can change.
func fixedBalance(cfg *config.Run) string {
	if cfg.Balance == "shared" {
		return cfg.Balance
	}
	return ""
}

// Fixed knows what of a configuration a master cannot change, and tells what would
// have to.
type Fixed struct {
	was  map[string]string
	said map[string]string // by key: the value that was told of last
	cfg  config.Run        // with what is in effect
}

// NewFixed returns what a master goes by that runs by cfg.
func NewFixed(cfg *config.Run) *Fixed {
	return &Fixed{was: fixed(cfg), said: map[string]string{}, cfg: *cfg}
}

// Keep takes a configuration that was read again: it puts back what cannot change, as
// far as Live goes by it, and names each key that needs a restart, once for each value.
// The change is in effect when Live has been made of it: see Took.
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

// Took says that a configuration that Keep has seen is in effect.
func (f *Fixed) Took(cfg *config.Run) { f.cfg.Balance = cfg.Balance }
