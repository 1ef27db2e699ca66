package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/printable"
)

func versionsCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "versions [PROJECT]",
		Aliases: []string{"list"},
		Short:   "List the versions of a deployment",
		Long:    `List the versions, oldest first, with the time and user of each deploy; * is live, - was live before.`,
		Example: "  handoff versions\n  rackadmin list /srv/web\n  handoff versions --json | jq -r '.versions[] | select(.live) | .version'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, r, err := inspect(args)
			if err != nil {
				return err
			}
			type row struct {
				Version  string     `json:"version"`
				Live     bool       `json:"live"`
				Previous bool       `json:"previous"`
				At       *time.Time `json:"deployed_at,omitempty"`
				By       string     `json:"by,omitempty"`
				From     string     `json:"from,omitempty"`
			}
			rows := []row{}
			for _, v := range r.List() {
				x := row{Version: v.Version, Live: v.Live, Previous: v.Previous, By: v.By, From: v.From}
				if !v.At.IsZero() {
					x.At = &v.At
				}
				rows = append(rows, x)
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "project": path, "head": r.Head, "versions": rows})
			}
			if !term.IsTerminal(int(os.Stdout.Fd())) { // as RackMan prints it, for scripts
				for _, x := range rows {
					fmt.Println(x.Version)
				}
				return nil
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			for _, x := range rows {
				mark, at := " ", ""
				switch {
				case x.Live:
					mark = "*"
				case x.Previous:
					mark = "-"
				}
				if x.At != nil {
					at = x.At.Local().Format(time.DateTime)
				}
				fmt.Fprintf(t, "%s %s\t%s\t%s\t%s\n", mark, printable.Text(x.Version), at, printable.Text(x.By), printable.Text(x.From))
			}
			return t.Flush()
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
