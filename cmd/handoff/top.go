package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/top"
)

func topCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "top [NAME]",
		Short: "Monitor and control a service on a terminal",
		Long: `Show a running handoff live: slots with their queues, CPU and memory, and the log below.

Keys: r reload, + and - scale, up and down select a slot, x restart it, l switch the log between events and
the output of workers, S stop the service (asks first), q quit.`,
		Example: `  handoff top
  handoff top web`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			if _, err := client.Status(); err != nil {
				return err
			}
			if !term.IsTerminal(int(os.Stdout.Fd())) {
				return failed{errors.New("handoff top needs a terminal; handoff status --watch does not")}
			}
			if err := top.Run(client); err != nil {
				return failed{err}
			}
			return nil
		},
	}
}
