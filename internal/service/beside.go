package service

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"handoff/internal/capture"
	"handoff/internal/config"
	"handoff/internal/hooks"
	"handoff/internal/migrate/rackman"
	"handoff/internal/watch"
	"handoff/master"
	"handoff/master/health"
	"handoff/master/process"
)

// Watch is the configuration of the watched files.
func Watch(cfg *config.Run, p Program) watch.Config {
	if len(cfg.Watch) == 0 && len(p.Rack) == 0 {
		return watch.Config{}
	}
	w := watch.Config{Dir: filepath.Clean(string(p.Dir)), Patterns: cfg.Watch, Ignore: cfg.WatchIgnore, Delay: cfg.WatchDelay, Own: written(cfg, p)}
	if len(p.Config) > 0 {
		w.Files = []string{filepath.Clean(string(p.Config))}
	}
	if len(p.Rack) > 0 && filepath.Base(string(p.Config)) != rackman.File {
		w.Files = append(w.Files, filepath.Join(w.Dir, rackman.File), filepath.Join(string(p.Rack), rackman.VersionFile))
		if here := string(p.Here); here != string(p.Rack) { // of the version
			w.Files = append(w.Files, filepath.Join(here, config.FileName))
		}
		if cfg.RackVersion != "" {
			w.Files = nil // it does not depend on the live version
		}
	}
	return w
}

// written are globs of the files that handoff writes.
func written(cfg *config.Run, p Program) (globs []string) {
	for _, path := range []string{cfg.LogFile, cfg.PIDFile} {
		if path != "" {
			globs = append(globs, watch.Written(p.Path(path))...)
		}
	}
	if c := Capture(cfg, p); c.Mode == capture.Files {
		globs = append(globs, watch.WrittenIn(c.Dir, c.Names())...)
	}
	return globs
}

// Hooks are the commands at events. environ is handoff's own.
func Hooks(cfg *config.Run, p Program, environ []string) hooks.Config {
	commands, _ := cfg.HookCommands() // they were checked
	env := slices.DeleteFunc(slices.Clone(process.Environ(environ)), func(kv string) bool { return strings.HasPrefix(kv, "PWD=") })
	env = append(env, "PWD="+string(p.Here), "HANDOFF_NAME="+string(p.Name))
	h := hooks.Config{Commands: commands, Timeout: cfg.HookTimeout, Dir: string(p.Here), Env: env, Script: p.HookScript()}
	if c, err := cfg.Conditions(); err == nil && c.User != nil { // it is the program's, as the workers are
		h.As = &syscall.Credential{Uid: uint32(c.User.UID), Gid: uint32(c.User.GID)}
		for _, g := range c.User.Groups {
			h.As.Groups = append(h.As.Groups, uint32(g))
		}
	}
	if cfg.DryRun || cfg.Private {
		h.Script = ""
	}
	return h
}

// Vetoes are the hooks that can refuse, called with ask; nil: none.
func Vetoes(cfg *config.Run, ask func(hook string, about map[string]any) error) (reload, ready master.Veto) {
	commands, _ := cfg.HookCommands()
	veto := func(hook string) master.Veto {
		if len(commands[hook]) == 0 {
			return nil
		}
		return func(about map[string]any) error { return ask(hook, about) }
	}
	return veto(config.BeforeReload), veto(config.BeforeReady)
}

// Health is how workers are checked, commands with run; nil: they are not.
func Health(cfg *config.Run, run func(ctx context.Context, command string, about map[string]any) error) *master.Health {
	h := &cfg.Health
	c, err := h.Question()
	at, aerr := h.At()
	if h.Check == "" || err != nil || aerr != nil { // errors were found by Check
		return nil
	}
	c.Command = run
	return &master.Health{Config: health.Config{Interval: h.Interval, Rise: h.Rise, Fall: h.Fall, StartPeriod: h.StartPeriod},
		Timeout: h.Timeout, Check: c.Run, At: at}
}

// Capture is the configuration of captured output; the caller sets the writers.
func Capture(cfg *config.Run, p Program) capture.Config {
	mode := capture.Mode(cfg.Capture)
	if cfg.LogPrefix {
		mode = capture.Prefix
	}
	return capture.Config{Mode: mode, Name: string(p.Name), Dir: p.Path(cfg.CaptureDir)}
}

// Effective is the effective configuration, by the keys of a file.
func Effective(cfg *config.Run, p Program) map[string]any {
	all := cfg.Effective()
	all["schema"], all["command"], all["file"], all["name"], all["cwd"] = 1, p.Command(), string(p.Config), string(p.Name), string(p.Dir)
	all["folder"] = string(p.From)
	return all
}
