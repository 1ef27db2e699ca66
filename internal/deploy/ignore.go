package deploy

import (
	"bytes"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// ignore is a list of rules as .gitignore has them (gitignore(5)): the last one that
// matches decides.
type ignore []rule

type rule struct {
	glob   string
	keep   bool // it began with !
	folder bool // it ended with /
}

// maxBraces is how many braces a rule may have: each more makes the comparison with one name
// a multiple longer.
const maxBraces = 8

// parseIgnore reads rules. One that is no glob matches nothing.
func parseIgnore(text []byte) (rules ignore) {
	for line := range bytes.Lines(text) {
		s := strings.TrimRight(string(line), "\r\n")
		if !strings.HasSuffix(s, `\ `) {
			s = strings.TrimRight(s, " \t")
		}
		if s == "" || s[0] == '#' {
			continue
		}
		var r rule
		if s[0] == '!' {
			r.keep, s = true, s[1:]
		}
		s = strings.TrimPrefix(s, `\`)
		if r.folder = strings.HasSuffix(s, "/"); r.folder {
			s = strings.TrimSuffix(s, "/")
		}
		if s == "" {
			continue
		}
		if strings.Contains(s, "/") {
			s = strings.TrimPrefix(s, "/")
		} else {
			s = "**/" + s
		}
		if r.glob = s; doublestar.ValidatePattern(s) && strings.Count(s, "{") <= maxBraces {
			rules = append(rules, r)
		}
	}
	return rules
}

// match reports whether a path, relative and with slashes, is left out. Folders above it
// have been asked before.
func (rules ignore) match(name string, isDir bool) bool {
	name = path.Clean(name)
	out := false
	for _, r := range rules {
		if r.folder && !isDir {
			continue
		}
		if ok, _ := doublestar.Match(r.glob, name); ok {
			out = !r.keep
		}
	}
	return out
}
