package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/linux"
)

func stopCommand() *cobra.Command {
	asJSON, now, noWait, timeout := false, false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "stop [NAME]",
		Short: "Drain the workers, stop, and wait for the end",
		Long: `Stop a service: its workers drain, for --drain-timeout of handoff run at most. Waits until all have exited.
Exit code: 0 stopped; 1 not within --timeout; 3 handoff is not running.`,
		Example: `  handoff stop
  handoff stop web --now`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			// The service has stopped when the keeper has exited.
			before, err := client.Status()
			if err != nil {
				return err
			}
			process, err := linux.OpenPidfd(before.PID)
			if err != nil {
				return failed{fmt.Errorf("cannot wait for process %d: %w", before.PID, err)}
			}
			defer process.Close()
			if err := client.Stop(now); err != nil {
				return failed{err}
			}
			what := "stops"
			if !noWait {
				what = "stopped"
				var until time.Time
				if timeout > 0 {
					until = time.Now().Add(timeout)
				}
				if process.AwaitDeath(until) != nil {
					return failed{fmt.Errorf("%s: not stopped within %v; it is still stopping", client.Name, timeout)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "state": what})
			}
			fmt.Printf("%s: %s\n", client.Name, what)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&now, "now", false, "kill the workers without draining")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the end")
	durationFlag(c, &timeout, "timeout", "stop waiting after this time (default: no limit)")
	return c
}
