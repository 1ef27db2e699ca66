package watch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheck(t *testing.T) {
	if err := Check([]string{"**/*.js", "!lib/**", "{a,b}/?.ts"}); err != nil {
		t.Error(err)
	}
	for _, p := range []string{"lib", "../shared/*.js", "/etc/web", "/etc/web/**", "a/../b/*", "!/**", "./~/x", "~x"} {
		if err := Check([]string{p}); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"[", "{a", "![x", "", "!", "/", "/**", "/*/x", "*/../x", "~/web/**", "!~/x"} {
		if err := Check([]string{"**", p}); err == nil || strings.Trim(p, "!") != "" && !strings.Contains(err.Error(), fmt.Sprintf("%q", p)) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// What matches, and what is not looked at.
func TestMatching(t *testing.T) {
	for _, c := range []struct {
		patterns, ignore, name string
		want                   bool
		root                   string // "": the folder
	}{
		{"**/*.js", "", "lib/a.js", true, ""},
		{"**/*.js", "", "a.ts", false, ""},
		{"./lib/**", "", "lib/x/y", true, ""},
		{"**/*.js !**/*.test.js", "", "a.test.js", false, ""},
		{"**/*.js !**/*.test.js **/keep.test.js", "", "keep.test.js", true, ""},
		{"**", "", "node_modules/x/index.js", false, ""},
		{"**", "", ".git/HEAD", false, ""},
		{"** .env", "", ".env", true, ""},
		{"node_modules/mine/** **", "", "node_modules/mine/a.js", true, ""},
		{"**", "tmp/", "tmp/a.js", false, ""},
		{"**", "lib/*.log", "lib/a.log", false, ""},
		{"**", "lib/*.log", "lib/a.js", true, ""},
		// A folder is what is below it, whether or not it is there.
		{"lib", "", "lib/x/y", true, ""},
		{"lib/", "", "lib/x/y", true, ""},
		{".", "", "x/y", true, ""},
		{"lib", "", "library/x", false, ""},
		{"** !lib", "", "lib/x", false, ""},
		{"**", "/srv/[[]web]/tmp", "tmp/a", false, ""},
		// Elsewhere.
		{"/etc/web/*.json", "", "/etc/web/a.json", true, "/etc/web"},
		{"/etc/web/*.json", "", "/etc/web/x/a.json", false, "/etc/web"},
		{"../shared/**/*.js", "", "/srv/shared/x/a.js", true, "/srv/shared"},
		{"../shared", "", "/srv/shared/x/a.js", true, "/srv/shared"},
		{"../shared/** !**/*.test.js", "", "/srv/shared/x/a.test.js", false, "/srv/shared"},
		{"../shared/** !../shared/x/**", "", "/srv/shared/x/a.js", false, "/srv/shared"},
		{"../shared/**", "**/*.log", "/srv/shared/x/a.log", false, "/srv/shared"},
		{"/home/.x/app/**", "", "/home/.x/app/a.js", true, "/home/.x/app"},
		{"/home/x/app/**", "", "/home/x/app/.git/a.js", false, "/home/x/app"},
	} {
		g := globsOf(Config{Patterns: strings.Fields(c.patterns), Ignore: strings.Fields(c.ignore)}, "/srv/[web]")
		name := c.name
		if !filepath.IsAbs(name) {
			name = "/srv/[web]/" + name
		}
		root := "/srv/[web]"
		if c.root != "" {
			root = c.root
		}
		rel, _ := filepath.Rel(root, name)
		if got := g.matches(name, rel) && !g.ignores(root, rel); got != c.want {
			t.Errorf("%s of %q without %q: %v", c.name, c.patterns, c.ignore, got)
		}
	}
}

// An error says what to do about it.
func TestLimits(t *testing.T) {
	for err, want := range map[error]string{unix.ENOSPC: "sysctl fs.inotify.max_user_watches", unix.EMFILE: "sysctl fs.inotify.max_user_instances", errors.New("odd"): "cannot watch: odd"} {
		if got := limits(err).Error(); !strings.Contains(got, want) {
			t.Errorf("%v: %s", err, got)
		}
	}
	if err := Run(context.Background(), Config{Dir: filepath.Join(t.TempDir(), "gone"), Patterns: []string{"**"}}, nil); err == nil || !strings.HasPrefix(err.Error(), "cannot watch: ") {
		t.Error(err)
	}
	if err := Run(context.Background(), Config{Files: []string{filepath.Join(t.TempDir(), "gone", "file")}}, nil); err == nil {
		t.Error("a folder that is not there is watched")
	}
}
