//go:build man

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the man pages, for packages.
func manCommand(root *cobra.Command) *cobra.Command {
	dir := "."
	c := &cobra.Command{
		Use:     "man",
		Short:   "Write the man pages",
		Long:    `Write the man pages, one for each command, into a directory.`,
		Example: `  handoff man --dir /usr/local/share/man/man1`,
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return failed{err}
			}
			root.DisableAutoGenTag = true
			date, err := madeAt()
			if err != nil {
				return failed{err}
			}
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "handoff " + version, Manual: "handoff", Date: &date}, dir); err != nil {
				return failed{err}
			}
			pages, _ := filepath.Glob(filepath.Join(dir, "handoff*.1"))
			fmt.Printf("%d man pages in %s\n", len(pages), dir)
			return nil
		},
	}
	root.AddCommand(referenceCommand(root))
	c.Flags().StringVar(&dir, "dir", dir, "`directory` that they are written into")
	return c
}

// madeAt is the date of the pages: SOURCE_DATE_EPOCH, that of the source, so that the same
// source gives the same pages (reproducible-builds.org), or now.
func madeAt() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), nil
}
