package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"handoff/internal/config"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/service"
)

const (
	envProgram  = "HANDOFF_PROGRAM" // tells masters what the keeper has found out
	envReplaces = "HANDOFF_REKEPT"  // marks a keeper that comes after one that was killed
)

// configure reads environment and file, and finds out what is meant. A master, and
// a keeper that comes after another, take what was found out last.
func configure(flags *pflag.FlagSet, cfg *config.Run, args []string, asMaster bool) (service.Resolved, error) {
	source := service.Source{Flags: flags, Run: cfg, Args: args}
	var err error
	if asMaster || os.Getenv(envReplaces) != "" {
		if source.Before, err = inherited(asMaster); err != nil {
			return service.Resolved{}, failed{err}
		}
	}
	if source.Before == nil {
		if source.Here, err = os.Getwd(); err != nil { // $PWD where that is right
			return service.Resolved{}, failed{fmt.Errorf("cannot find the working directory: %w", err)}
		}
	}
	r, err := source.Resolve()
	if err == nil && r.Report != "" && !asMaster {
		fmt.Fprintf(os.Stderr, "handoff: %s: %s\n", filepath.Base(string(r.Config)), r.Report)
	}
	return r, err
}

// reconfigure is configure for a master that runs: everything is read again, and what
// is wrong now is an error. args are the command line that the master was started by,
// before is what was read last: the loop waits for this, and the keeper is not asked.
func reconfigure(args []string, before service.Program) (*config.Run, service.Program, error) {
	cfg := config.NewRun()
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	cfg.Flags(flags)
	if len(args) > 0 && args[0] == "run" {
		args = args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return nil, service.Program{}, err
	}
	r, err := service.Source{Flags: flags, Run: cfg, Args: flags.Args(), Before: &before, Reread: true}.Resolve()
	return cfg, r.Program, err
}

// inherited is what the master before has read last, or what the keeper has passed; nil:
// nothing.
func inherited(asMaster bool) (*service.Program, error) {
	text := []byte(os.Getenv(envProgram))
	if notify := os.Getenv("NOTIFY_SOCKET"); asMaster && notify != "" {
		if err := fdstore.Announce(notify); err != nil { // a candidate is not believed before; others need not say it
			return nil, err
		}
		kept, err := fdstore.ReadProgram(notify)
		if err != nil {
			return nil, err
		}
		if kept != nil {
			text = kept
		}
	}
	p, ok := service.Decode(text)
	if !ok {
		return nil, nil
	}
	return &p, nil
}
