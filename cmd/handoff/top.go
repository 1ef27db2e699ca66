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
		Short: "Watch what runs on a screen, and change it",
		Long: `Show what a running handoff does, as it happens: slots with their queues, CPU and memory, the log below.

Keys: r reload, + and - scale, up and down select a slot, x restart it, l switch the log between events and
what workers write, S stop everything (asks), q quit.`,
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
