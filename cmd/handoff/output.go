package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"handoff/internal/capture"
	"handoff/internal/config"
	"handoff/internal/hooks"
	"handoff/internal/logging"
	"handoff/master"
)

// output is what workers write, where that is captured.
type output struct {
	*capture.Capture
	recent *logging.Events // its last lines
}

// captureOf returns what --capture asks for; nil: nothing.
func captureOf(cfg *config.Run, what program, log *logging.Log) (*output, error) {
	mode := capture.Mode(cfg.Capture)
	if cfg.LogPrefix {
		mode = capture.Prefix
	}
	if mode == capture.None {
		return nil, nil
	}
	dir := cfg.CaptureDir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(string(what.Here), dir)
	}
	o := &output{recent: &logging.Events{}}
	var err error
	o.Capture, err = capture.New(capture.Config{Mode: mode, Name: string(what.Name), Dir: dir, Out: os.Stdout, Err: os.Stderr,
		Colour: logging.Colour(term.IsTerminal(int(os.Stdout.Fd()))), Recent: o.recent})
	log.Output = o.recent
	return o, err
}

// worker returns where the output of a worker goes.
func (o *output) worker(slot, pid, generation int) (stdout, stderr io.Writer) {
	w := capture.Worker{Slot: slot, PID: pid, Generation: generation}
	return o.Stream(w, capture.Stdout), o.Stream(w, capture.Stderr)
}

// hooksOf is what runs at events.
func hooksOf(cfg *config.Run, what program) hooks.Config {
	commands, _ := cfg.HookCommands() // they were checked
	env := master.WorkerEnviron(os.Environ())
	env = append(slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PWD=") }), "PWD="+string(what.Here), "HANDOFF_NAME="+string(what.Name))
	h := hooks.Config{Commands: commands, Timeout: cfg.HookTimeout, Dir: string(what.Here), Env: env, Script: what.hookScript()}
	if c, err := cfg.Conditions(); err == nil && c.User != nil { // it is the program's, as the workers are
		h.As = &syscall.Credential{Uid: uint32(c.User.UID), Gid: uint32(c.User.GID)}
		for _, g := range c.User.Groups {
			h.As.Groups = append(h.As.Groups, uint32(g))
		}
	}
	if cfg.Scratch || cfg.Private {
		h.Script = ""
	}
	return h
}

// vetoes are the hooks that may refuse; nil: there are none.
func vetoes(cfg *config.Run, hooking *hooks.Runner) (reload, ready master.Veto) {
	commands, _ := cfg.HookCommands()
	if len(commands[config.BeforeReload]) > 0 {
		reload = func(about map[string]any) error { return hooking.Ask(config.BeforeReload, about) }
	}
	if len(commands[config.BeforeReady]) > 0 {
		ready = func(about map[string]any) error { return hooking.Ask(config.BeforeReady, about) }
	}
	return reload, ready
}

// effective is what a master runs by, for who asks. It is safe for concurrent use:
// the mutex is held for a moment.
type effective struct {
	mu  sync.Mutex
	all map[string]any
}

func (e *effective) set(cfg *config.Run, what program) {
	all := cfg.Effective()
	all["schema"], all["command"], all["file"], all["name"], all["cwd"] = 1, what.command(), string(what.Config), string(what.Name), string(what.Dir)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = all
}

func (e *effective) get() any {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all
}
