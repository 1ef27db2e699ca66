package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

const (
	bareValue = `^\s*([A-Za-z0-9_.-]+)\s*=\s*([^"'\[\]{}#]+?)\s*(#.*)?$`
	noEquals  = `^\s*([A-Za-z0-9_.-]+)\s*(?::\s*|\s+)([^=]+?)\s*$`
)

// inWords returns what the line should be, if that can be guessed; else the parser's
// error.
func inWords(text []byte, line int, parser string) string {
	lines := strings.Split(string(text), "\n")
	if line < 1 || line > len(lines) {
		return parser
	}
	if m := regexp.MustCompile(bareValue).FindStringSubmatch(lines[line-1]); m != nil {
		return bare(m[1], m[2], parser)
	}
	if m := regexp.MustCompile(noEquals).FindStringSubmatch(lines[line-1]); m != nil {
		return fmt.Sprintf("want key = value: %s = %s", m[1], inTOML(m[1], strings.Trim(m[2], `"'`)))
	}
	return parser
}

// bare describes the error of a value without quotes.
func bare(key, value, parser string) string {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	NewRun().Flags(fs)
	kind := ""
	if flag := fs.Lookup(strings.ReplaceAll(key, "_", "-")); flag != nil {
		kind = flag.Value.Type()
	}
	switch _, err := strconv.ParseFloat(value, 64); {
	case err == nil || value == "true" || value == "false":
		return parser // not a text
	case kind == "bool":
		return fmt.Sprintf("%s: want true or false, without quotes", key)
	case key == "workers":
		return fmt.Sprintf("workers: want a number, or %q or \"max-1\" in quotes", "max")
	case kind == "int":
		return fmt.Sprintf("%s: want a number", key)
	}
	return fmt.Sprintf("text needs quotes: %s = %s", key, inTOML(key, value))
}

// inTOML is a value in TOML.
func inTOML(key, value string) string {
	if _, err := strconv.Atoi(value); err == nil {
		return value
	}
	if words := strings.Fields(value); key == "command" && len(words) > 1 {
		quoted := slices.Clone(words)
		for i, w := range words {
			quoted[i] = strconv.Quote(w)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return strconv.Quote(value)
}

// OneWord returns the probable meaning of a missing program whose name has spaces: "npm
// start"; "" if it has none.
func OneWord(program string) string {
	words := strings.Fields(program)
	if len(words) < 2 {
		return ""
	}
	return fmt.Sprintf("%q: that is one word, the name of a program; with arguments: command = %s, or handoff run %s", program, inTOML("command", program), program)
}
