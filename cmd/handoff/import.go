package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"handoff/internal/migrate/pm2"
	"handoff/internal/trust"
)

func importCommand() *cobra.Command {
	only, environ := "", ""
	c := &cobra.Command{
		Use:   "import pm2 [FILE]",
		Short: "Convert a PM2 ecosystem file to handoff.toml",
		Long: `Print the handoff.toml for a PM2 ecosystem file; comments report what happened to its keys.
FILE defaults to ecosystem.config.js in this directory. handoff run FILE runs it directly.`,
		Example: `  handoff import pm2 > handoff.toml
  handoff import pm2 ecosystem.config.cjs --only api --env production`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "pm2" {
				return fmt.Errorf("cannot import from %q: only pm2 is supported", args[0])
			}
			path := ""
			if len(args) > 1 {
				path = args[1]
			}
			for _, name := range []string{"ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.config.mjs", "ecosystem.json", "ecosystem.yaml"} {
				if _, err := os.Stat(name); path == "" && err == nil {
					path = name
				}
			}
			if path == "" {
				return failed{fmt.Errorf("no ecosystem.config.js in this directory: name the file")}
			}
			var others *trust.Error
			if _, err := (trust.Reader{UID: os.Geteuid()}).Check(path); errors.As(err, &others) {
				return failed{err}
			}
			app, err := pm2.Read(path, only, environ, pm2.Self())
			if err != nil {
				return failed{err}
			}
			fmt.Printf("# From %s. handoff run runs it, handoff check validates it.\n", filepath.Base(path))
			for _, line := range app.Report() {
				fmt.Println("# " + line)
			}
			os.Stdout.Write(app.TOML)
			return nil
		},
	}
	c.Flags().StringVar(&only, "only", "", "`name` of the app")
	c.Flags().StringVar(&environ, "env", "", "apply env_`NAME` over env, as PM2's --env does")
	return c
}
