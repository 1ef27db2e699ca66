package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"handoff/internal/config"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/service"
)

const (
	envProgram  = "HANDOFF_PROGRAM" // passes the keeper's result to masters
	envReplaces = "HANDOFF_REKEPT"  // marks a keeper that replaces a killed one
)

// configure reads environment and file, and resolves the program. A master, and a keeper
// that replaces another, use the last result.
func configure(flags *pflag.FlagSet, cfg *config.Run, args []string, asMaster bool) (service.Resolved, error) {
	source := service.Source{Flags: flags, Run: cfg, Args: args}
	var err error
	if asMaster || os.Getenv(envReplaces) != "" {
		if source.Before, err = inherited(asMaster); err != nil {
			return service.Resolved{}, failed{err}
		}
	}
	if source.Before == nil {
		if source.Here, err = os.Getwd(); err != nil { // $PWD if it is correct
			return service.Resolved{}, failed{fmt.Errorf("cannot find the working directory: %w", err)}
		}
	}
	r, err := source.Resolve()
	if err == nil && r.Report != "" && !asMaster {
		fmt.Fprintf(os.Stderr, "handoff: %s: %s\n", filepath.Base(string(r.Config)), r.Report)
	}
	return r, err
}

// reconfigure is configure for a running master: everything is reread, and a wrong value
// is an error. args is the master's command line, before the last result: the loop waits
// for this, so the keeper is not asked.
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

// inherited is the last result of the previous master, or that of the keeper; nil: none.
func inherited(asMaster bool) (*service.Program, error) {
	text := []byte(os.Getenv(envProgram))
	if notify := os.Getenv("NOTIFY_SOCKET"); asMaster && notify != "" {
		if err := fdstore.Announce(notify); err != nil { // a candidate is not accepted before; others need not announce themselves
			return nil, err
		}
		kept, err := fdstore.ReadProgram(notify)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it gives them only to the binary on disk; if that was replaced again meanwhile, upgrade again", err)
		}
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
