package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/api"
	"handoff/internal/capture"
	"handoff/internal/printable"
)

func logsCommand() *cobra.Command {
	asJSON, follow, last, slot := false, false, 100, -1
	c := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "Show the captured output of workers",
		Long: `Show the last lines that the workers of a running handoff have written, and with --follow new ones.
Requires handoff run --capture prefix, json or files (or --log-prefix); otherwise the output goes where handoff's own goes.`,
		Example: `  handoff logs -f
  handoff logs web --slot 0 --last 20`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			n := last
			if slot >= 0 {
				n = 1 << 20 // of which the last are chosen here
			}
			var kept [][]byte
			show := func(line []byte) {
				if asJSON {
					os.Stdout.Write(append(line, '\n'))
					return
				}
				var l capture.Line
				if json.Unmarshal(line, &l) == nil {
					if term.IsTerminal(int(os.Stdout.Fd())) { // colours are all that a worker may do to it
						l.Name, l.Line = printable.Text(l.Name), printable.Coloured(l.Line)
					}
					fmt.Printf("%s.%d | %s\n", l.Name, l.Slot, l.Line)
				}
			}
			return follows(args, api.LogsPath, n, follow, func(line []byte) {
				var l capture.Line
				if json.Unmarshal(line, &l) != nil || slot >= 0 && l.Slot != slot {
					return
				}
				if slot < 0 || follow {
					show(line)
					return
				}
				if kept = append(kept, bytes.Clone(line)); len(kept) > last {
					kept = kept[1:]
				}
			}, func() {
				for _, line := range kept {
					show(line)
				}
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow new lines")
	c.Flags().IntVarP(&last, "last", "n", last, "start with this `many` lines")
	c.Flags().IntVar(&slot, "slot", slot, "show only this `slot`")
	return c
}
