package watch

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Check finds patterns that are none, or can match nothing.
func Check(patterns []string) error {
	for _, p := range patterns {
		glob := strings.TrimPrefix(p, "!")
		base, rest := doublestar.SplitPattern(glob)
		switch {
		case glob == "":
			return errors.New("an empty pattern")
		case !doublestar.ValidatePattern(glob):
			return fmt.Errorf("invalid pattern %q", p)
		case tooMany(glob):
			return fmt.Errorf("pattern %q has more than %d alternatives in its braces", p, maxAlternatives)
		case strings.HasPrefix(glob, "~/"):
			return fmt.Errorf("pattern %q: only a shell expands ~; write the whole path (./~ is a file of that name)", p)
		case slices.Contains(strings.Split(rest, "/"), "..") && meta(rest):
			return fmt.Errorf("pattern %q can match nothing: .. after a wildcard; write it without", p)
		case path.Clean(base) == "/" && (meta(rest) || rest == "") && !strings.HasPrefix(p, "!"):
			return fmt.Errorf("pattern %q would watch the whole file system: name a directory", p)
		}
	}
	return nil
}

// maxAlternatives is how many globs without braces a glob may stand for: each is tried, with
// every file that changes.
const maxAlternatives = 1000

func tooMany(glob string) bool {
	n, _ := alternatives(glob, 0, 0)
	return n > maxAlternatives
}

// alternatives is how many they are, or more: {a,b}{c,d} is 4. It reads up to the end of a
// group from at on, and returns what is behind it; depth is in how many groups that is.
func alternatives(glob string, at, depth int) (n, end int) {
	sum, n := 0, 1
	for at < len(glob) && sum+n <= maxAlternatives {
		c := glob[at]
		at++
		switch {
		case c == '\\':
			at++
		case c == '{' && depth >= maxAlternatives:
			return maxAlternatives + 1, len(glob)
		case c == '{':
			var of int
			of, at = alternatives(glob, at, depth+1)
			n *= of
		case c == ',' && depth > 0:
			sum, n = sum+n, 1
		case c == '}' && depth > 0:
			return sum + n, at
		}
	}
	return sum + n, at
}

func meta(glob string) bool { return strings.ContainsAny(glob, `*?[{\`) }

// escape makes a glob of a path that matches it alone.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "{", `\{`).Replace(path)
}

// pattern is one of Config's, absolute.
type pattern struct {
	said string // below a root, of one that begins with **/ and applies to each of them
	glob string
	not  bool
	base string // the folder before the first wildcard
	deep int    // how many folders below it may matter; unlimited: all
	path string // what it names, if it has no wildcard; else ""
}

const unlimited = 1 << 30

// absolute makes a pattern absolute. dir is resolved: .. means what it means to the
// program.
func absolute(said, dir string) (p pattern) {
	p.not = strings.HasPrefix(said, "!")
	said = strings.TrimRight(strings.TrimPrefix(said, "!"), "/")
	base, rest := doublestar.SplitPattern(said)
	if !filepath.IsAbs(base) {
		base = dir + "/" + base
	}
	p.base = filepath.Clean(base)
	if rest = path.Clean(rest); !meta(rest) {
		p.path = filepath.Join(p.base, rest)
		p.glob, p.base, p.deep = escape(p.path), filepath.Dir(p.path), 0
		return p
	}
	p.glob = strings.TrimSuffix(escape(p.base), "/") + "/" + rest
	p.deep = strings.Count(rest, "/")
	if strings.Contains(rest, "**") {
		p.deep = unlimited
	}
	if strings.HasPrefix(said, "**/") {
		p.said = said
	}
	return p
}

func (p pattern) matches(name, rel string) bool {
	if p.path != "" {
		return name == p.path || strings.HasPrefix(name, p.path+"/")
	}
	if ok, _ := doublestar.Match(p.glob, name); ok {
		return true
	}
	ok := false
	if p.said != "" && p.not {
		ok, _ = doublestar.Match(p.said, rel)
	}
	return ok
}

// globs are all patterns of a configuration, absolute.
type globs struct {
	patterns []pattern
	ignore   []pattern
	own      []string
	named    []string // parts of paths that patterns name: they are looked at, whatever they begin with
}

func globsOf(c Config, dir string) (g globs) {
	for _, said := range c.Patterns {
		g.patterns = append(g.patterns, absolute(said, dir))
		if !strings.HasPrefix(said, "!") {
			g.named = append(g.named, strings.Split(said, "/")...)
		}
	}
	for _, said := range c.Ignore {
		p := absolute(said, dir)
		p.not = true
		g.ignore = append(g.ignore, p)
	}
	for _, glob := range c.Own {
		base, rest := doublestar.SplitPattern(glob)
		if resolved, _, ok := follow(base); ok {
			base = resolved
		}
		g.own = append(g.own, strings.TrimSuffix(escape(base), "/")+"/"+rest)
	}
	return g
}

// matches reports whether a path is watched: the last pattern that fits decides. rel is the
// same, below its root.
func (g globs) matches(name, rel string) bool {
	yes := false
	for _, p := range g.patterns {
		if p.matches(name, rel) {
			yes = !p.not
		}
	}
	return yes
}

// ignores reports whether a path below a root, or a folder that it is in, is not looked at.
func (g globs) ignores(root, rel string) bool {
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		if (part == "node_modules" || strings.HasPrefix(part, ".")) && !slices.Contains(g.named, part) {
			return true
		}
		upTo := strings.Join(parts[:i+1], "/")
		for _, p := range g.ignore {
			if p.matches(root+"/"+upTo, upTo) {
				return true
			}
		}
	}
	return false
}

// isOwn reports whether a resolved path is one that the caller writes.
func (g globs) isOwn(name string) bool {
	return slices.ContainsFunc(g.own, func(glob string) bool {
		ok, _ := doublestar.Match(glob, name)
		return ok
	})
}

// Written are the globs of a file that is written, for Config.Own: it, and what a
// rotation makes of it (web.log.1, web.log-20260101).
func Written(path string) []string {
	return []string{escape(path), escape(path) + "[.-][0-9]*"}
}

// WrittenIn are those of files in a folder, names being a glob.
func WrittenIn(dir, names string) []string {
	return []string{strings.TrimSuffix(escape(dir), "/") + "/" + names}
}
