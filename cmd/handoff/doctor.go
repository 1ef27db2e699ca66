package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"handoff/internal/doctor"
)

func doctorCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check kernel features and limits",
		Long: `Try what handoff needs of this machine, as this user, and say what each result means and what to do about it.
Nothing that runs is touched. Exit code: 0 everything that is needed is there; 1 something is missing.`,
		Example: `  handoff doctor
  handoff doctor --json | jq '.findings[] | select(.state != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, missing := doctor.Examine(doctor.This())
			if asJSON {
				printJSON(map[string]any{"schema": 1, "findings": all})
			} else {
				for _, f := range all {
					fmt.Printf("%-8s %-22s %s\n", f.State, f.Name, f.What)
					if f.Advice != "" {
						fmt.Printf("%-8s %-22s   → %s\n", "", "", f.Advice)
					}
				}
			}
			if missing {
				return failed{nil}
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
