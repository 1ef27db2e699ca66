//go:build !man

package main

import "github.com/spf13/cobra"

// manCommand is in builds with -tags man alone (make man): what renders the pages
// would cost each start of a worker's trampoline a millisecond.
func manCommand(*cobra.Command) *cobra.Command { return nil }
