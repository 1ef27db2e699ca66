package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/printable"
)

// cpuOver is over which time the use of CPUs is looked at, by the clock of the kernel,
// which ticks every 10 ms.
const cpuOver = 250 * time.Millisecond

// Exit codes of a status, besides those of all commands.
const (
	exitStalled = 4
	exitVacant  = 5
)

func statusCode(s api.Status) int {
	switch {
	case len(s.Vacant) > 0:
		return exitVacant
	case s.Ready < s.Slots || s.Slots == 0 || len(s.Unserved()) > 0:
		return exitFailed
	case s.Stalled() > 0:
		return exitStalled
	}
	return 0
}

// usage is what workers have used of CPUs, at the last look.
type usage struct {
	at   time.Time
	used map[int]float64 // seconds, by worker
}

// sample returns which part of a CPU each worker has used since the look before.
func (u *usage) sample(s api.Status, now time.Time) map[int]float64 {
	before, used := *u, map[int]float64{}
	*u = usage{now, map[int]float64{}}
	for _, w := range s.Workers {
		u.used[w.Worker] = w.CPU
		if was, ok := before.used[w.Worker]; ok && now.After(before.at) {
			used[w.Worker] = max(w.CPU-was, 0) / now.Sub(before.at).Seconds()
		}
	}
	return used
}

func statusCommand(code *int) *cobra.Command {
	asJSON, watch := false, false
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show workers, queues and memory",
		Long: `Show the workers of a running handoff, their phases, queues and memory.

NAME is the service's --name, or the program's; its pid and its folder are understood, too.
It is optional if only one service runs, or in the service's own folder.
A slot without a worker has a row, with what it waits for; "next" says what will happen, and when.
CPU is of one CPU, over a quarter of a second.
Exit code: 0 every slot is served; 1 not every slot is, or nobody accepts on an address; 3 not running; 4 every slot is served, but a
worker is stalled: it accepts nothing, while others do; 5 a slot has no worker: its starts fail, and it waits
for the next one, or no worker is started in it.`,
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
				var cpu usage
				cpu.sample(s, time.Now())
				time.Sleep(cpuOver)
				if later, err := client.Status(); err == nil {
					s = later
				}
				printStatus(os.Stdout, s, cpu.sample(s, time.Now()), time.Now())
			}
			*code = statusCode(s)
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
	var cpu usage
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
			printStatus(&b, s, cpu.sample(s, time.Now()), time.Now())
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

// printStatus prints a status for people. What answers may be another user's, if it is root
// who asks: it cannot steer the terminal.
func printStatus(out io.Writer, s api.Status, cpu map[int]float64, now time.Time) {
	var b strings.Builder
	writeStatus(&b, s, cpu, now)
	io.WriteString(out, printable.Text(b.String()))
}

func writeStatus(out io.Writer, s api.Status, cpu map[int]float64, now time.Time) {
	fmt.Fprintf(out, "%s: %s, %d of %d slots ready, generation %d, pid %d, up %s\n", s.Name, s.State, s.Ready, s.Slots, s.Generation, s.PID, age(now.Sub(s.Started)))
	var at []string
	for _, a := range s.Addresses {
		about := a.Balance
		if a.Unserved {
			about = "nobody accepts"
		}
		if a.Waited > 0 {
			about += ", connections waited up to " + strconv.FormatFloat(a.Waited, 'f', 1, 64) + " s"
		}
		at = append(at, a.Address+" ("+about+")")
	}
	if len(at) > 0 {
		fmt.Fprintf(out, "listens on %s\n", strings.Join(at, ", "))
	}
	if s.LastError != "" {
		fmt.Fprintf(out, "last error: %s\n", s.LastError)
	}
	for _, o := range s.Output {
		fmt.Fprintf(out, "output: cannot write to %s: %s; lines lost: %d\n", o.To, o.Error, o.Lost)
	}
	if len(s.Output) == 0 && s.LostLines > 0 {
		fmt.Fprintf(out, "output: written again; lines lost: %d\n", s.LostLines)
	}
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SLOT\tPID\tGEN\tPHASE\tREADY\tQUEUE\tRESTARTS\tCPU\tMEMORY\tSTATUS")
	type row struct {
		slot int
		text string
	}
	var rows []row
	for _, w := range s.Workers {
		ready := "-"
		if w.Ready != nil {
			ready = age(now.Sub(*w.Ready))
		}
		phase, status := w.Phase, w.Status
		if w.Stalled {
			phase = "stalled"
		}
		if w.Reloading {
			status = strings.TrimSpace("(reloading) " + status)
		}
		percent := "-"
		if used, ok := cpu[w.Worker]; ok {
			percent = fmt.Sprintf("%.0f%%", 100*used)
		}
		rows = append(rows, row{w.Slot, fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", w.Slot, w.PID, w.Generation, phase, ready, w.Queue,
			api.RestartsText(w.RestartReasons, w.Restarts), percent, size(w.RSS), status)})
	}
	for _, v := range s.Vacant {
		rows = append(rows, row{v.Slot, fmt.Sprintf("%d\t-\t%d\t%s\t-\t-\t%s\t-\t-\t%s\n", v.Slot, v.Generation, v.State, api.RestartsText(v.RestartReasons, 0), v.Text(now))})
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.slot - b.slot })
	for _, r := range rows {
		io.WriteString(t, r.text)
	}
	t.Flush()
	for i, f := range s.Finishing {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "draining: %d processes that worker %d has left finish their connections, for %s more at most\n", f.Processes, f.Worker, age(f.Until.Sub(now)))
	}
	for i, n := range s.Next {
		if i == 0 && len(s.Finishing) == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "next: %s\n", n.Text(now))
	}
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
