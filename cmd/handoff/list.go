package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/api"
)

func listCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"ps", "list"},
		Short:   "List running services",
		Long: `List every running handoff of this user, also those that are part of a Node program
(@handoff/node's drop-ins), by the name of its package. Exit code 0, also if there is none.`,
		Example: `  handoff ls
  handoff ls --json | jq -r '.services[].name'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list, names := []api.Status{}, []string{} // of two services with one name, the second is called by another
			for _, name := range admin.Names() {
				client, err := admin.Find(name)
				var s api.Status
				if err == nil && client.Get(api.StatusPath, &s) == nil {
					list, names = append(list, s), append(names, name)
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "services": list})
			}
			if others := admin.OfOthers(); len(list) == 0 && others != "" {
				fmt.Fprintln(os.Stderr, "handoff: nothing of yours runs"+others)
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tSTATE\tREADY\tGENERATION\tPID\tUP\tLISTENS ON")
			for i, s := range list {
				var at []string
				for _, a := range s.Addresses {
					at = append(at, a.Address)
				}
				fmt.Fprintf(t, "%s\t%s\t%d/%d\t%d\t%d\t%s\t%s\n", names[i], s.State, s.Ready, s.Slots, s.Generation, s.PID, age(time.Since(s.Started)), strings.Join(at, " "))
			}
			return t.Flush()
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
