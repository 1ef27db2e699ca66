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
		Long: `Check whether this machine has what handoff needs, as this user; print what each result means and what to do.
Running services are not touched. Exit code: 0 nothing required is missing; 1 something is.`,
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
