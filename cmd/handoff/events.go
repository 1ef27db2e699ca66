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
)

func eventsCommand() *cobra.Command {
	asJSON, follow, last := false, false, 20
	c := &cobra.Command{
		Use:   "events [NAME]",
		Short: "Show what has happened, and what happens",
		Long: `Show the last events of a running handoff, and with --follow those that come, also of masters that come after it.
They are the lines of its log; the names are stable.`,
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
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line an event")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come")
	c.Flags().IntVarP(&last, "last", "n", last, "how `many` to begin with")
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
	fmt.Fprintf(out, "%s %-5s %s  %s\n", e.Time.Local().Format(time.DateTime), e.Level, e.Msg, strings.Join(about, " "))
	for l := range strings.Lines(e.Stderr) {
		fmt.Fprintln(out, "    "+strings.TrimRight(l, "\n"))
	}
}
