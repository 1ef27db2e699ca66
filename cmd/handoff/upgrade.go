package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func upgradeCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "upgrade [NAME]",
		Short: "Replace handoff itself by the binary that is on disk now",
		Long: `Replace a running handoff by the binary that is on disk now, at the path that it was started by.
No worker restarts for it, the pid stays, and no connection is lost. If the new binary does not
take over, the old one goes on, and the error says why.

USR2 does the same by itself when the binary has changed, and reloads the workers after it.`,
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
