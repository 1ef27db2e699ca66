package main

import (
	"context"
	"handoff/internal/config"
	"handoff/internal/prove"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

// startable is a subject that can be started and stopped.
type startable interface {
	prove.Subject
	Start(context.Context) error
	Stop()
}

// subject returns what is tested. dir is a temporary folder for it.
func (p *proof) subject(flags *pflag.FlagSet, cfg *config.Run, args []string, dir string) (s startable, what string, err error) {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, "WATCHDOG_")
	})
	if p.against != "" {
		return &prove.Against{Command: p.against, Reload: p.againstReload, Env: env, Output: p.output, Address: p.address, Pause: p.pause}, p.against, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, "", failed{err}
	}
	if os.Getenv("PORT") == "" {
		port, err := freePort()
		if err != nil {
			return nil, "", failed{err}
		}
		env = append(env, "PORT="+port)
	}
	flags.Set("private", "true")
	program, err := configure(flags, cfg, args, false)
	if err != nil {
		return nil, "", err
	}
	if len(program.Here) > 0 {
		here = string(program.Here)
	}
	command, path := program.Said, filepath.Join(dir, config.FileName)
	write, err := writer(path, program.Text, cfg.Env)
	if err == nil {
		err = write(command)()
	}
	if err != nil {
		return nil, "", failed{err}
	}
	binary, err := os.Executable()
	if err != nil {
		return nil, "", failed{err}
	}
	// The folder of its control socket, also for the client in this process.
	os.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(dir, "run"))
	env = append(env, "HANDOFF_RUNTIME_DIR="+filepath.Join(dir, "run"))
	if line, _, err := config.CommandLine(command, here); err == nil && cfg.ContractOf(line) != "node" {
		p.keep = cfg.KeepConns
	}
	without := map[prove.Action]string{}
	if len(cfg.Ports) > 0 {
		without[prove.Scale] = "each slot has a port of its own"
	}
	if cfg.Death != "" {
		without[prove.Upgrade] = "with --pdeathsig workers end with their master"
		without[prove.KillMaster] = without[prove.Upgrade]
	}
	h := &prove.Handoff{Binary: binary, Env: env, Name: "prove-" + strconv.Itoa(os.Getpid()), Output: p.output, Address: p.address,
		Break: write(brokenProgram(cfg, command)), Repair: write(command), Without: without, DrainTimeout: cfg.DrainTimeout + cfg.KillGrace + cfg.DrainSpread + settle}
	h.Args = append([]string{"run", "--private", "--config", path, "--cwd", cfg.WorkdirPath(here), "--name", h.Name, "--log", "json"}, p.passedOn(flags)...)
	return h, strings.Join(command, " "), nil
}

// writer returns a function that writes a configuration file with another command, so that
// a reload runs that. text is the user's configuration file.
func writer(path string, text []byte, environ []string) (func(command []string) func() error, error) {
	keys := map[string]any{}
	if err := toml.Unmarshal(text, &keys); err != nil {
		return nil, err
	}
	if len(environ) > 0 { // overrides the file; not passed as flags, since it may be secret
		set := map[string]string{}
		for _, kv := range environ {
			k, v, _ := strings.Cut(kv, "=")
			set[k] = v
		}
		keys["env"] = set
	}
	return func(command []string) func() error {
		return func() error {
			keys["command"] = command
			b, err := toml.Marshal(keys)
			if err != nil {
				return err
			}
			return os.WriteFile(path, b, 0o600)
		}
	}, nil
}

// brokenProgram returns a command of the same contract that does not start.
func brokenProgram(cfg *config.Run, command []string) []string {
	const script = "throw new Error('this is the broken deploy of handoff prove')"
	line, _, err := config.CommandLine(command, "/")
	if err == nil && cfg.ContractOf(line) == "node" {
		return []string{line[0], "-e", script}
	}
	return []string{"sh", "-c", "echo 'this is the broken deploy of handoff prove' >&2; exit 1"}
}

// settle is the time that old workers have beyond their timeouts.
const settle = 5 * time.Second

// passedOn returns the flags for `handoff run`. It reads file and environment itself.
func (p *proof) passedOn(flags *pflag.FlagSet) (args []string) {
	run := pflag.NewFlagSet("run", pflag.ContinueOnError)
	config.NewRun().Flags(run)
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "cwd", "env", "name", "log", "private", "only", "pm2-env", "rack-version", "timeout":
			return
		}
		if run.Lookup(f.Name) == nil || !p.set[f.Name] {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args
}

// freePort returns an unused port.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
