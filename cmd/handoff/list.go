package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/printable"
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
			list, names, hang := statuses(listWithin) // of two services with one name, the second is called by another
			if len(hang) > 0 {
				fmt.Fprintf(os.Stderr, "handoff: no answer within %v from %s\n", listWithin, strings.Join(hang, ", "))
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "services": list})
			}
			if others := admin.OfOthers(); len(list) == 0 && others != "" {
				fmt.Fprintln(os.Stderr, "handoff: nothing of yours runs"+others)
			}
			var b strings.Builder
			t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tSTATE\tREADY\tGENERATION\tPID\tUP\tLISTENS ON")
			for i, s := range list {
				var at []string
				for _, a := range s.Addresses {
					at = append(at, a.Address)
				}
				fmt.Fprintf(t, "%s\t%s\t%d/%d\t%d\t%d\t%s\t%s\n", names[i], s.State, s.Ready, s.Slots, s.Generation, s.PID, age(time.Since(s.Started)), strings.Join(at, " "))
			}
			t.Flush()
			fmt.Print(printable.Text(b.String()))
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// listWithin is how long a service may take for its answer to `handoff ls`.
const listWithin = 3 * time.Second

// statuses asks all services at once. hang are those that take an answer's time and give
// none: they are stopped, or another user's, whom root asks as well.
func statuses(within time.Duration) (list []api.Status, names, hang []string) {
	type answer struct {
		status api.Status
		err    error
	}
	all := admin.Names()
	answers := make([]chan answer, len(all))
	for i, name := range all {
		answers[i] = make(chan answer, 1)
		go func() { // ends with the answer, or its time
			var a answer
			client, err := admin.Find(name)
			if err == nil {
				err = client.Within(within).Get(api.StatusPath, &a.status)
			}
			a.err = err
			answers[i] <- a
		}()
	}
	list = []api.Status{}
	for i, name := range all {
		switch a := <-answers[i]; {
		case a.err == nil:
			list, names = append(list, a.status), append(names, name)
		case errors.Is(a.err, context.DeadlineExceeded):
			hang = append(hang, name)
		}
	}
	return list, names, hang
}
