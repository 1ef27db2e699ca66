package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"handoff/internal/config"
)

func initCommand() *cobra.Command {
	cfg := config.NewRun()
	force, schema := false, false
	c := &cobra.Command{
		Use:   "init [COMMAND [ARG...]]",
		Short: "Write a handoff.toml with every key in it, commented",
		Long: `Write handoff.toml in this directory: what runs, and every other key as a comment with its default.
A file that is there is not overwritten.`,
		Example: `  handoff init server.js
  handoff init -- gunicorn app:app
  handoff init --schema > handoff.schema.json`,
		RunE: func(_ *cobra.Command, args []string) error {
			run := &cobra.Command{}
			cfg.Flags(run.Flags())
			run.Flags().SortFlags = false
			if schema {
				b, err := config.Schema(run.Flags())
				if err == nil {
					_, err = fmt.Println(string(b))
				}
				return err
			}
			if len(args) == 0 {
				args = []string{"server.js"}
			}
			var words []byte
			if len(args) == 1 {
				words, _ = json.Marshal(args[0])
			} else {
				words, _ = json.Marshal(args)
			}
			mode := os.O_WRONLY | os.O_CREATE | os.O_EXCL
			if force {
				mode = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			}
			f, err := os.OpenFile(config.FileName, mode, 0o644)
			if errors.Is(err, os.ErrExist) {
				return failed{fmt.Errorf("%s is there already; --force overwrites it", config.FileName)}
			}
			if err == nil {
				_, err = f.Write(config.Sample(run.Flags(), string(words)))
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				return failed{fmt.Errorf("cannot write the configuration: %w", err)}
			}
			fmt.Printf("%s is written; `handoff check` looks at it, `handoff run` runs it\n", config.FileName)
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "overwrite what is there")
	c.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the file instead, for editors")
	c.Flags().SetInterspersed(false)
	return c
}

func checkCommand() *cobra.Command {
	cfg := config.NewRun()
	asJSON := false
	c := &cobra.Command{
		Use:   "check [flags] [--] [COMMAND [ARG...] | DIR]",
		Short: "Look for mistakes in the configuration; nothing runs",
		Long: `Read the configuration as handoff run would, and say what would run. Nothing is started, and no port is touched.
Exit code: 0 it is right; 1 what is to be run is not there; 2 the configuration is wrong.`,
		Example: `  handoff check
  handoff check -c /etc/web/handoff.toml
  handoff check -n 4 server.js`,
		RunE: func(c *cobra.Command, args []string) error {
			what, _, err := configure(c.Flags(), cfg, args, false)
			if err != nil {
				return err
			}
			slots, err := cfg.Slots()
			if err != nil {
				return err
			}
			if cfg.EnvFile != "" {
				path := cfg.EnvFile
				if !filepath.IsAbs(path) {
					path = filepath.Join(string(what.Dir), path)
				}
				if _, err := os.Stat(path); err != nil {
					return failed{fmt.Errorf("cannot read the environment file: %w", err)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "config": string(what.Config), "command": what.command(), "cwd": string(what.Dir), "workers": slots, "contract": cfg.ContractOf(what.command())})
			}
			from := "flags alone, no " + config.FileName
			if len(what.Config) > 0 {
				from = string(what.Config)
			}
			fmt.Printf("%s: right\n  runs      %s\n  in        %s\n  workers   %d, by the %s contract\n", from, strings.Join(what.command(), " "), what.Dir, slots, cfg.ContractOf(what.command()))
			return nil
		},
	}
	cfg.Flags(c.Flags())
	jsonFlag(c, &asJSON)
	c.Flags().SortFlags = false
	c.Flags().SetInterspersed(false)
	return c
}
