package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func upgradeCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "upgrade [NAME]",
		Short: "Replace handoff itself with the binary on disk",
		Long: `Replace a running handoff with the binary that is now on disk at the path it was started by.
No worker restarts, the pid stays the same, and no connection is lost. If the new binary does not
take over, the old one continues, and the error says why.

USR2 does this automatically if the binary has changed, and then reloads the workers.`,
		Example: `  handoff upgrade
  handoff upgrade web`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			if err := client.Upgrade(); err != nil {
				return failed{err}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "upgraded": true})
			}
			fmt.Printf("%s: upgraded\n", client.Name)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
