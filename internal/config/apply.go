package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// noKeys are flags of run that a file cannot have.
var noKeys = []string{"help", "config", "trust-config", "no-steering", "embedded", "only", "pm2-env", "scratch", "private", "rack-version"}

// Keys lists the keys of a file.
func Keys(fs *pflag.FlagSet) []string {
	keys := []string{"command", "hooks"}
	fs.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(noKeys, f.Name) && f.Name != "hook" {
			keys = append(keys, strings.ReplaceAll(f.Name, "-", "_"))
		}
	})
	return keys
}

// Apply sets the flags that are set neither on the command line nor by the environment.
func (f *File) Apply(fs *pflag.FlagSet) error {
	set := map[string]bool{}
	fs.Visit(func(flag *pflag.Flag) { set[flag.Name] = true })
	for _, v := range f.values {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d:%d: %s", f.Path, v.at.Line, v.at.Column, fmt.Sprintf(format, args...))
		}
		flag := fs.Lookup(v.flag)
		if flag == nil || slices.Contains(noKeys, v.flag) {
			return wrong("unknown key %q%s", v.key, suggest(v.key, Keys(fs)))
		}
		if v.list && !strings.HasPrefix(flag.Value.Type(), "string") || v.list && flag.Value.Type() == "string" {
			return wrong("%s: want one value, not a list", v.key)
		}
		if v.truth && strings.HasPrefix(flag.Value.Type(), "string") {
			return wrong("%s: want a text in quotes, not %s; leave the key out for none", v.key, v.words[0])
		}
		if flag.Value.Type() == "bool" && !slices.Contains([]string{"true", "false"}, v.words[0]) {
			return wrong("%s: want true or false", v.key)
		}
		if set[v.flag] {
			continue
		}
		for _, word := range v.words {
			if err := fs.Set(v.flag, word); err != nil {
				// pflag's text is about a command line, and may contain a secret.
				var why error = err
				if inner := errors.Unwrap(err); inner != nil {
					why = inner
				}
				return wrong("%s: %v", v.key, why)
			}
		}
	}
	return nil
}

// suggest names a similar key, if there is one.
func suggest(key string, known []string) string {
	return nearest(key, known, "; `handoff init` lists all keys")
}

func nearest(key string, known []string, none string) string {
	best, at := 3, ""
	for _, k := range known {
		if d := distance(key, k); d < best {
			best, at = d, k
		}
	}
	if at == "" {
		return none
	}
	return fmt.Sprintf("; did you mean %q?", at)
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}
