package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/admin"
	"handoff/internal/api"
)

func statusCommand() *cobra.Command {
	asJSON, watch := false, false
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show workers, queues and memory",
		Long: `Show the workers of a running handoff, their phases, queues and memory.

NAME is the service's --name, or the program's; it is optional if only one service runs.
Exit code: 0 every slot is served; 1 not every slot is served; 3 not running.`,
		Example: `  handoff status
  handoff status web --json | jq .state`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			if watch {
				return watchStatus(client, asJSON)
			}
			s, err := client.Status()
			if err != nil {
				return err
			}
			if asJSON {
				printJSON(s)
			} else {
				printStatus(os.Stdout, s, time.Now())
			}
			if s.Ready < s.Slots || s.Slots == 0 {
				return failed{nil}
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "refresh every second, until Ctrl-C")
	return c
}

// watchStatus shows the status again and again, in place on a terminal.
func watchStatus(client *admin.Client, asJSON bool) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	tty := term.IsTerminal(int(os.Stdout.Fd()))
	for {
		s, err := client.Status()
		var b bytes.Buffer
		switch {
		case err != nil:
			fmt.Fprintln(&b, err)
		case asJSON:
			json.NewEncoder(&b).Encode(s) // a line each
		default:
			printStatus(&b, s, time.Now())
		}
		if tty && !asJSON {
			os.Stdout.WriteString("\x1b[H\x1b[2J") // home, clear
		}
		if _, err := b.WriteTo(os.Stdout); err != nil {
			return nil // nobody reads any more
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}

func printStatus(out io.Writer, s api.Status, now time.Time) {
	fmt.Fprintf(out, "%s: %s, %d of %d slots ready, generation %d, pid %d, up %s\n", s.Name, s.State, s.Ready, s.Slots, s.Generation, s.PID, age(now.Sub(s.Started)))
	var at []string
	for _, a := range s.Addresses {
		at = append(at, a.Address+" ("+a.Balance+")")
	}
	if len(at) > 0 {
		fmt.Fprintf(out, "listens on %s\n", strings.Join(at, ", "))
	}
	if s.LastError != "" {
		fmt.Fprintf(out, "last error: %s\n", s.LastError)
	}
	for _, o := range s.Output {
		fmt.Fprintf(out, "output: cannot write to %s: %s; %d lines lost\n", o.To, o.Error, o.Lost)
	}
	if len(s.Output) == 0 && s.LostLines > 0 {
		fmt.Fprintf(out, "output: %d lines were lost; it is written again\n", s.LostLines)
	}
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SLOT\tPID\tGEN\tPHASE\tREADY\tQUEUE\tRESTARTS\tCPU\tMEMORY\tSTATUS")
	for _, w := range s.Workers {
		ready := "-"
		if w.Ready != nil {
			ready = age(now.Sub(*w.Ready))
		}
		status := w.Status
		if w.Reloading {
			status = strings.TrimSpace("(reloading) " + status)
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", w.Slot, w.PID, w.Generation, w.Phase, ready, w.Queue, w.Restarts,
			time.Duration(w.CPU*float64(time.Second)).Round(10*time.Millisecond), size(w.RSS), status)
	}
	t.Flush()
}

// age is a duration as a tired person reads it.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd %dh", int(d.Hours())/24, int(d.Hours())%24)
}

func size(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
