package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"handoff/internal/migrate/pm2"
)

func importCommand() *cobra.Command {
	only, environ := "", ""
	c := &cobra.Command{
		Use:   "import pm2 [FILE]",
		Short: "Print the handoff.toml for PM2's ecosystem file",
		Long: `Print what PM2's ecosystem file means as a handoff.toml, with what became of its keys as comments.
FILE is ecosystem.config.js here, if none is given. handoff run FILE runs it as it is.`,
		Example: `  handoff import pm2 > handoff.toml
  handoff import pm2 ecosystem.config.cjs --only api --env production`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "pm2" {
				return fmt.Errorf("cannot import from %q: there is pm2", args[0])
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
				return failed{fmt.Errorf("there is no ecosystem.config.js here: give PM2's file")}
			}
			app, err := pm2.Read(path, only, environ)
			if err != nil {
				return failed{err}
			}
			fmt.Printf("# From %s. handoff run runs it, handoff check looks at it.\n", filepath.Base(path))
			for _, line := range app.Report() {
				fmt.Println("# " + line)
			}
			os.Stdout.Write(app.TOML)
			return nil
		},
	}
	c.Flags().StringVar(&only, "only", "", "the app of this `name`")
	c.Flags().StringVar(&environ, "env", "", "put env_`NAME` over env, as PM2's --env does")
	return c
}
