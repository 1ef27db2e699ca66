package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"handoff/internal/config"
)

// helpOn is `handoff help WORD...`.
func helpOn(root *cobra.Command) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		c, _, err := root.Find(args)
		if c == nil || err != nil || c == root && len(args) > 0 {
			return fmt.Errorf("no help for %q; `handoff --help` lists the commands", strings.Join(args, " "))
		}
		c.InitDefaultHelpFlag()
		return c.Help()
	}
}

// screen is `handoff --help`: it fits 80 columns and 24 lines.
func screen(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`handoff runs N copies of a network program and holds its listening sockets: a
reload overlaps old and new, no connection is refused, reset or left hanging.
  handoff run -n 4 server.js    then kill -USR2 PID puts new code into service
`)
	for _, group := range root.Groups() {
		for i, c := range slices.DeleteFunc(slices.Clone(root.Commands()), func(c *cobra.Command) bool { return c.GroupID != group.ID }) {
			title := ""
			if i == 0 {
				title = group.Title
			}
			fmt.Fprintf(&b, "%-8s %-9s %s\n", title, c.Name(), c.Short)
		}
	}
	b.WriteString("Versions  setup, register, deploy, switch, rollback, clean, head, versions\nDetails: handoff COMMAND --help. Also: help hooks, completion, notify, version\n")
	return b.String()
}

// hooksTopic is no command: it has only help.
func hooksTopic() *cobra.Command {
	var events []string
	for _, e := range config.HookEvents {
		events = append(events, "  "+e)
	}
	return &cobra.Command{
		Use:   "hooks",
		Short: "About hooks",
		Long: `A hook is a shell command that runs at an event:

  handoff run --hook 'worker.crashed=mail -s "$HANDOFF_NAME crashed" root' server.js

or in handoff.toml:

  [hooks]
  "worker.crashed" = "./alert.sh"
  before_reload = ["./frozen.sh", "npm run migrate"]

It gets the event as JSON on stdin, and each of its fields as a variable: HANDOFF_EVENT,
HANDOFF_NAME, HANDOFF_SLOT, HANDOFF_PID, HANDOFF_GENERATION, HANDOFF_REASON, HANDOFF_FILE…
Hooks run where handoff was started, as handoff's user, one at a time, in the order of the
events. Their output goes to the log. After --hook-timeout a hook is killed. Its exit code is
only logged, except for two hooks that can refuse, with an exit code other than 0:

  before_reload   nothing is reloaded, and handoff reload says why
  before_ready    the worker is not put into service; a reload that starts it fails

The events:

` + strings.Join(events, "\n") + `

In a RackMan folder, its .rackhooks.js runs unchanged.`,
	}
}
