package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/api"
	"handoff/internal/printable"
)

func eventsCommand() *cobra.Command {
	asJSON, follow, last := false, false, 20
	c := &cobra.Command{
		Use:   "events [NAME]",
		Short: "Show recent events, and follow them",
		Long: `Show the last events of a running handoff, and with --follow new ones, also across upgrades and restarts of the
master. They are the lines of its log; their names are stable.`,
		Example: `  handoff events
  handoff events web --follow --json | jq -r 'select(.event=="worker.crashed") | .msg'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return follows(args, api.EventsPath, last, follow, func(line []byte) {
				if asJSON {
					os.Stdout.Write(append(line, '\n'))
					return
				}
				printEvent(os.Stdout, line)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one event per line")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow new events")
	c.Flags().IntVarP(&last, "last", "n", last, "start with this `many` events")
	return c
}

// printEvent prints an event for people.
func printEvent(out io.Writer, line []byte) {
	var e struct {
		Time             time.Time
		Level, Msg       string
		Slot, PID        *int
		Generation       int
		Reason, Stderr   string
		Address, Version string
	}
	if json.Unmarshal(line, &e) != nil {
		return
	}
	var about []string
	add := func(name string, v any) { about = append(about, fmt.Sprintf("%s=%v", name, v)) }
	if e.Slot != nil {
		add("slot", *e.Slot)
	}
	if e.PID != nil {
		add("pid", *e.PID)
	}
	if e.Generation > 0 {
		add("generation", e.Generation)
	}
	if e.Reason != "" {
		add("reason", strconv.Quote(e.Reason))
	}
	fmt.Fprintf(out, "%s %-5s %s  %s\n", e.Time.Local().Format(time.DateTime), printable.Text(e.Level), printable.Text(e.Msg), strings.Join(about, " "))
	for l := range strings.Lines(e.Stderr) {
		fmt.Fprintln(out, "    "+printable.Text(strings.TrimRight(l, "\n")))
	}
}
