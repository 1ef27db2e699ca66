package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"handoff/internal/config"
	"handoff/internal/service"
	"handoff/master"
	"handoff/master/process"
)

func checkCommand() *cobra.Command {
	cfg := config.NewRun()
	asJSON := false
	c := &cobra.Command{
		Use:   "check [flags] [--] [COMMAND [ARG...] | DIR]",
		Short: "Validate the configuration",
		Long: `Read the configuration as handoff run would, and print what would run. Nothing is started, and no port is opened.
Exit code: 0 OK; 1 the program or a file does not exist; 2 the configuration is invalid.`,
		Example: `  handoff check
  handoff check -c /etc/web/handoff.toml
  handoff check -n 4 server.js`,
		RunE: func(c *cobra.Command, args []string) error {
			what, err := configure(c.Flags(), cfg, args, false)
			if err != nil {
				return err
			}
			if _, err := check(cfg, what.Program); err != nil {
				return err
			}
			slots, err := cfg.Slots()
			if err != nil {
				return err
			}
			live, unpinned, err := starts(cfg, what.Program)
			if err != nil {
				return err
			}
			contract, signal := cfg.ContractOf(what.Command()), unix.SignalName(live.DrainSignal)
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "config": string(what.Config), "command": what.Command(), "cwd": string(what.Dir), "workers": slots, "contract": contract, "drain_signal": signal, "drain_reason": live.DrainReason})
			}
			from := "flags only, no " + config.FileName
			if len(what.Config) > 0 {
				from = string(what.Config)
			}
			fmt.Printf("%s: OK\n  runs      %s\n  in        %s\n  workers   %d, by the %s contract\n", from, strings.Join(what.Command(), " "), what.Dir, slots, contract)
			if contract != "node" {
				fmt.Printf("  drain     by %s%s\n", signal, because(cfg, live))
			}
			for _, link := range unpinned {
				fmt.Println("  note      " + process.Unpinned(link))
			}
			return nil
		},
	}
	cfg.Flags(c.Flags())
	jsonFlag(c, &asJSON)
	c.Flags().SortFlags = false
	c.Flags().SetInterspersed(false)
	return c
}

// because tells where the drain signal comes from.
func because(cfg *config.Run, live master.Live) string {
	switch {
	case live.DrainReason != "":
		return ": " + live.DrainReason
	case cfg.DrainSignal != config.AutoSignal:
		return " (--drain-signal)"
	}
	return ""
}

// starts finds out whether a worker's program can be started: its folder, its environment
// file and the program are there. unpinned are the symlinks in it that cannot be pinned.
func starts(cfg *config.Run, what service.Program) (live master.Live, unpinned []string, err error) {
	live, err = service.Live(cfg, what, service.ThisWorld(slog.New(slog.DiscardHandler)))
	if err != nil {
		return live, nil, err
	}
	launch, err := live.Command.Resolve()
	if err != nil {
		return live, nil, failed{err}
	}
	return live, launch.Unpinned, nil
}
