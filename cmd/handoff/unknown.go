package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// elsewhere is what commands of PM2 are called here.
func elsewhere() map[string]string {
	return map[string]string{
		"start":     "`handoff run` starts a service",
		"describe":  "`handoff status NAME` shows one service",
		"show":      "`handoff status NAME` shows one service",
		"info":      "`handoff status NAME` shows one service",
		"monit":     "`handoff top` watches services",
		"dash":      "`handoff top` watches services",
		"delete":    "`handoff stop NAME` ends a service, and nothing is left of it",
		"kill":      "`handoff stop NAME` ends a service",
		"jlist":     "`handoff ls --json` lists services",
		"flush":     "handoff keeps no log of its own to empty; `handoff run --capture files` rotates files",
		"save":      "`handoff systemd` prints a unit, which starts a service at boot",
		"resurrect": "`handoff systemd` prints a unit, which starts a service at boot",
		"startup":   "`handoff systemd` prints a unit, which starts a service at boot",
		"convert":   "`handoff import pm2` makes a handoff.toml of PM2's file",
		"migrate":   "`handoff import pm2` makes a handoff.toml of PM2's file",
		"ecosystem": "`handoff init` writes a handoff.toml; `handoff import pm2` makes one of PM2's file",
	}
}

// unknownCommand says what may have been meant.
func unknownCommand(root *cobra.Command, args []string) error {
	word := args[0]
	if here := elsewhere()[word]; here != "" {
		return fmt.Errorf("unknown command %q: %s", word, here)
	}
	if !strings.ContainsAny(word, "./") {
		if near := root.SuggestionsFor(word); len(near) > 0 {
			return fmt.Errorf("unknown command %q; did you mean `handoff %s`?", word, near[0])
		}
	}
	return fmt.Errorf("unknown command %q; `handoff --help` lists them (did you mean `handoff run %s`?)", word, strings.Join(args, " "))
}
