package main

import (
	"encoding/json"
	"fmt"
	"os"

	"handoff/internal/config"
)

// envProgram tells masters what the keeper has found out.
const envProgram = "HANDOFF_PROGRAM"

// program is what the arguments of `handoff run` meant when it was started. A
// master that starts later needs neither the directory nor the script to be there:
// only a reload does. Bytes, since none of it need be UTF-8.
type program struct {
	Here   []byte   // working directory of `handoff run`
	Dir    []byte   // of the workers
	Args   [][]byte // the whole command line of a worker
	Script int      // which of them is the script; 0: none
}

func resolve(cfg *config.Run, args []string) (p program, err error) {
	here, err := os.Getwd() // $PWD where that is right
	if err != nil {
		return p, fmt.Errorf("cannot find the working directory: %w", err)
	}
	dir, err := cfg.Workdir(here)
	if err != nil {
		return p, err
	}
	command, script, err := config.Command(args, dir)
	if err != nil {
		return p, err
	}
	p = program{Here: []byte(here), Dir: []byte(dir), Script: script}
	for _, a := range command {
		p.Args = append(p.Args, []byte(a))
	}
	return p, nil
}

// inheritedProgram is what the keeper has passed.
func inheritedProgram() (p program, ok bool) {
	err := json.Unmarshal([]byte(os.Getenv(envProgram)), &p)
	return p, err == nil && len(p.Args) > p.Script && p.Script >= 0 && len(p.Dir) > 0
}

func (p program) pass() error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.Setenv(envProgram, string(b))
}

func (p program) command() (args []string) {
	for _, a := range p.Args {
		args = append(args, string(a))
	}
	return args
}
