package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/cmsg"
	"handoff/internal/config"
	"handoff/internal/keeper"
	"handoff/internal/listenfds"
	"handoff/internal/service"
	"handoff/master/listeners"
)

func runCommand(code *int, asMaster bool) *cobra.Command {
	cfg := config.NewRun()
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...] | run [flags] APP.js [ARG...] | run [flags] [DIR]",
		Short: "Run a program and keep it running",
		Long: `Run N workers of a program, each on a listening socket that handoff holds.

A file ending in .js, .mjs, .cjs, .ts, .mts or .cts is run by node. No program needs a
change: in Node, server.listen(3000) gets a socket from handoff, as under its cluster module;
for any other program, handoff answers bind and listen (--contract).

Without a program, or with a directory, handoff.toml there says what to run and how: its keys are
these flags, with _ for -, and command. handoff init writes one, handoff check validates it.

Signals to handoff:
  USR2, HUP        reload: start new workers, switch when they are ready, drain the old ones
                   (HUP because the terminal has closed: drain and stop; under nohup: nothing)
  TERM, INT, QUIT  drain and stop; a second one stops immediately
  TTIN, TTOU       add a worker, remove one
  USR1             reopen --log-file

Every flag has an environment variable: --ready-timeout is HANDOFF_READY_TIMEOUT.
A duration is 500ms, 30s or 2m; a bare number is seconds.`,
		Example: `  handoff run server.js
  handoff run -n 4 --ready-when ready server.js --port 8080
  handoff run -n max-1 --balance sticky -- node --enable-source-maps dist/server.js
  handoff run -n 2 -- gunicorn app:app
  handoff run -- npm start
  handoff run --cwd /srv/current --env-file .env --pid-file /run/web.pid server.js`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := configure(c.Flags(), cfg, args, asMaster)
			if err != nil {
				return err
			}
			*code, err = start(cfg, r, asMaster)
			return err
		},
	}
	cfg.Flags(c.Flags())
	c.Flags().SortFlags = false
	c.Flags().SetInterspersed(false) // what follows the program is its own
	return c
}

// plan is what of a configuration can be wrong, and is found out before anything starts.
type plan struct {
	listens []listeners.Listen
	passed  []cmsg.Named
}

// check checks everything that can be.
func check(cfg *config.Run, what service.Program) (p plan, err error) {
	if p, err = planOf(cfg, what); err == nil {
		_, err = publicOf(cfg, what, nil)
	}
	return p, err
}

func planOf(cfg *config.Run, what service.Program) (p plan, err error) {
	if cfg.Name != "" {
		if err := admin.CheckName(cfg.Name); err != nil {
			return p, fmt.Errorf("--name: %w", err)
		}
	}
	if _, err := cfg.Slots(); err != nil {
		return p, err
	}
	if p.listens, err = cfg.Listens(string(what.Dir)); err != nil {
		return p, err
	}
	if p.passed, err = listenfds.Passed(os.Getenv); err != nil {
		return p, failed{err}
	}
	return p, nil
}

// start becomes the keeper, or the master.
func start(cfg *config.Run, r service.Resolved, asMaster bool) (code int, err error) {
	if asMaster {
		plan, err := planOf(cfg, r.Program) // of files it judges for itself
		if err != nil {
			return 0, err
		}
		return serve(cfg, r.Program, r.Said, plan)
	}
	plan, err := check(cfg, r.Program)
	if err != nil {
		return 0, err
	}
	if err := ownName(cfg, &r.Program); err != nil {
		return 0, err
	}
	kept, passed := split(keeper.KeptPrefix, plan.passed)
	return keep(cfg, r.Program, kept, passed)
}

// ownName gives a service a name that no other one of this user has, so that commands mean
// one: the next free one for a program, an error where the user has chosen it. What is part
// of another program is found by its parent, and a keeper that replaces one has its name.
func ownName(cfg *config.Run, p *service.Program) error {
	if cfg.Embedded || cfg.DryRun || cfg.Private || os.Getenv(envReplaces) != "" {
		return nil
	}
	name := string(p.Name)
	free := admin.FreeName(name)
	switch {
	case free == name:
		return nil
	case cfg.Name == "":
		saySoon(fmt.Sprintf("handoff: another service is called %s: this one is %s (--name chooses another name)\n", name, free))
		p.Called, p.Name = p.Name, []byte(free)
		return nil
	}
	who := ""
	if pid := admin.PIDOf(name); pid > 0 {
		who = fmt.Sprintf(" (pid %d)", pid)
	}
	return failed{fmt.Errorf("a service called %s is running%s: `handoff reload %s` puts new code into service, `handoff stop %s` ends it; --name %s would be free", name, who, name, name, free)}
}

// saySoon writes to stderr, and does not wait for a reader that is stuck.
func saySoon(text string) {
	said := make(chan struct{})
	go func() { // ends when it is read
		os.Stderr.WriteString(text)
		close(said)
	}()
	select {
	case <-said:
	case <-time.After(100 * time.Millisecond):
	}
}
