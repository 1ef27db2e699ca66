package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/api"
)

func reloadCommand() *cobra.Command {
	asJSON, noWait, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "reload [NAME]",
		Short: "Put new code into service, and report the outcome",
		Long: `Put the code that is on disk now into service, as USR2 does, and wait until it serves.

Exit code: 0 the new generation serves; 1 it failed and the previous one keeps serving: the
reason is printed with the last lines of the worker that failed; 3 handoff is not running.
A reload during a reload is not an error: the newest wins, and both commands wait for it.`,
		Example: `  handoff reload
  handoff reload web --timeout 2m
  handoff reload --no-wait`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			generation, err := client.Reload()
			if err != nil {
				return failed{err}
			}
			if noWait {
				if asJSON {
					return printJSON(map[string]any{"schema": 1, "name": client.Name, "generation": generation, "outcome": api.OutcomeRunning})
				}
				fmt.Printf("%s: generation %d starts\n", client.Name, generation)
				return nil
			}
			shown := 0
			s, err := await(client, timeout, func(s api.Status) bool {
				if !asJSON && shown != s.Wanted && s.Wanted >= generation {
					shown = s.Wanted
					fmt.Printf("%s: generation %d → %d, %d slots\n", client.Name, s.Generation, s.Wanted, s.Slots)
				}
				return s.Reload != nil && s.Reload.Generation >= generation && s.Reload.Outcome != api.OutcomeRunning
			})
			if err != nil {
				return err
			}
			if asJSON {
				r := s.Reload
				printJSON(map[string]any{"schema": 1, "name": client.Name, "generation": r.Generation, "outcome": r.Outcome, "reason": r.Reason, "stderr": r.Stderr, "seconds": r.Seconds, "serving": s.Generation})
			} else {
				printReload(client.Name, s)
			}
			if s.Reload.Outcome != api.OutcomeServed {
				return failed{nil}
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the outcome")
	durationFlag(c, &timeout, "timeout", "stop waiting after this time; the reload continues (default: no limit)")
	return c
}

// printReload prints the outcome of a reload: success on stdout, failure on stderr.
func printReload(name string, s api.Status) {
	r := s.Reload
	if r.Outcome == api.OutcomeServed {
		fmt.Printf("%s: generation %d serves, after %v\n", name, r.Generation, seconds(r.Seconds))
		return
	}
	for _, line := range r.Stderr {
		fmt.Fprintln(os.Stderr, "  "+line)
	}
	fmt.Fprintf(os.Stderr, "handoff: generation %d failed after %v: %s; generation %d %s\n", r.Generation, seconds(r.Seconds), r.Reason, s.Generation, s.Serving())
}
