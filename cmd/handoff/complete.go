package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"handoff/internal/admin"
	"handoff/internal/config"
	"handoff/internal/deploy"
)

// completing reports whether a shell asks, with a command line that is not finished: its
// last argument is being typed.
func completing(args []string) bool {
	return len(args) > 1 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)
}

// completions has the shell offer what is allowed at its place: for an argument what the
// command's usage names there, for a flag its words, or files only where it wants one.
func completions(root *cobra.Command) {
	for _, c := range root.Commands() {
		c.ValidArgsFunction = argumentsOf(c)
		if strings.Contains(c.Use, "[NAME]") {
			c.RegisterFlagCompletionFunc("name", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return admin.Names(), noFiles
			})
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if offer := valuesOf(f); offer != nil {
				c.RegisterFlagCompletionFunc(f.Name, offer)
			}
		})
	}
}

const (
	noFiles = cobra.ShellCompDirectiveNoFileComp
	folders = cobra.ShellCompDirectiveFilterDirs
)

// argumentsOf completes the arguments of a command by its usage; nil: any file, as where
// a program is given.
func argumentsOf(c *cobra.Command) cobra.CompletionFunc {
	switch {
	case c.Name() == "restart":
		return slotAndName
	case strings.Contains(c.Use, "[NAME]"):
		return serviceName
	case strings.Contains(c.Use, "VERSION"):
		return versionNames
	case strings.Contains(c.Use, "[PROJECT]"):
		return first(nil, folders)
	case c.Name() == "import":
		return first([]string{"pm2"}, noFiles, cobra.ShellCompDirectiveDefault)
	case c.Name() == "notify":
		return first([]string{"READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1", "STATUS=", "EXTEND_TIMEOUT_USEC="}, noFiles|cobra.ShellCompDirectiveNoSpace, noFiles)
	case c.Name() == "completion":
		return first(c.ValidArgs, noFiles)
	case c.Name() == "help":
		return first(subcommands(c.Root()), noFiles)
	case strings.Contains(c.Use, "COMMAND"):
		return nil
	}
	return first(nil, noFiles)
}

// first offers words for the first argument; then says what follows it: nothing, unless it
// is given.
func first(words []string, directive cobra.ShellCompDirective, then ...cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return words, directive
		case len(then) > 0:
			return nil, then[0]
		}
		return nil, noFiles
	}
}

func subcommands(root *cobra.Command) (names []string) {
	for _, c := range root.Commands() {
		if !c.Hidden {
			names = append(names, c.Name()+"\t"+c.Short)
		}
	}
	return names
}

// nameAndNumber returns the name among the arguments of a command, and reports whether there is a number.
func nameAndNumber(args []string) (name string, number bool) {
	for _, a := range args {
		if _, err := strconv.Atoi(strings.TrimPrefix(a, notAFlag)); err == nil {
			number = true
		} else {
			name = a
		}
	}
	return name, number
}

// serviceName completes the name of a running service, if there is none yet.
func serviceName(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if name, _ := nameAndNumber(args); name != "" {
		return nil, noFiles
	}
	return admin.Names(), noFiles
}

// slotAndName completes the slots of the service, and its name, in any order.
func slotAndName(_ *cobra.Command, args []string, _ string) (offer []string, _ cobra.ShellCompDirective) {
	name, number := nameAndNumber(args)
	if name == "" {
		offer = admin.Names()
	}
	if client, err := admin.Find(name); !number && err == nil {
		if s, err := client.Status(); err == nil {
			for slot := range s.Slots {
				offer = append(offer, fmt.Sprintf("%d\ta slot of %s", slot, client.Name))
			}
		}
	}
	return offer, noFiles
}

// versionNames completes the versions of a deployment: of the folder that is given, or
// of the one that this is; a folder besides, where none is given.
func versionNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, noFiles
	}
	offer := versionsIn(args)
	if len(args) == 0 && len(offer) == 0 {
		return nil, folders
	}
	return offer, noFiles
}

func versionsIn(args []string) (offer []string) {
	path, _, err := project(args, 1)
	if err != nil {
		return nil
	}
	r, err := deploy.Read(path)
	if err != nil {
		return nil
	}
	for _, v := range r.List() {
		text := v.Version
		if v.Live {
			text += "\tlive"
		}
		offer = append(offer, text)
	}
	return offer
}

// valuesOf completes the value of a flag; nil: a file.
func valuesOf(f *pflag.Flag) cobra.CompletionFunc {
	fixed := func(directive cobra.ShellCompDirective, words ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(words, directive)
	}
	if v, ok := f.Value.(interface{ Words() []string }); ok {
		return fixed(noFiles, v.Words()...)
	}
	switch f.Name {
	case "workers":
		return fixed(noFiles, "max", "max-1", "1", "2", "4")
	case "ready-delay", "cpu-affinity":
		return fixed(noFiles, "auto")
	case "websocket-close":
		return fixed(noFiles, "0", "1001", "1012")
	case "hook":
		return fixed(noFiles|cobra.ShellCompDirectiveNoSpace, eventsOfHooks()...)
	case "link-from":
		return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return versionsIn(args[:min(len(args), 1)]), noFiles
		}
	}
	switch placeholder, _ := pflag.UnquoteUsage(f); placeholder {
	case "file":
		return nil
	case "dir", "directory", "source":
		return fixed(folders)
	case "signal":
		signals := []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "KILL"}
		if f.DefValue == "auto" {
			signals = append([]string{"auto"}, signals...)
		}
		return fixed(noFiles, signals...)
	}
	return fixed(noFiles)
}

func eventsOfHooks() (words []string) {
	for _, e := range slices.Clone(config.HookEvents) {
		words = append(words, e+"=")
	}
	return words
}
