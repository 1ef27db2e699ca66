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
