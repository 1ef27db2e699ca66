package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"handoff/internal/config"
)

func initCommand() *cobra.Command {
	cfg := config.NewRun()
	force, schema := false, false
	c := &cobra.Command{
		Use:   "init [COMMAND [ARG...]]",
		Short: "Write a commented handoff.toml with every key",
		Long: `Write handoff.toml in this directory: the command, and every other key as a comment with its default.
An existing file is not overwritten.`,
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
				return failed{fmt.Errorf("%s already exists (use --force to overwrite)", config.FileName)}
			}
			if err == nil {
				_, err = f.Write(config.Sample(run.Flags(), string(words)))
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				return failed{fmt.Errorf("cannot write the configuration: %w", err)}
			}
			fmt.Printf("Wrote %s; `handoff check` validates it, `handoff run` runs it\n", config.FileName)
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "overwrite an existing file")
	c.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the file for editors")
	c.Flags().SetInterspersed(false)
	return c
}
