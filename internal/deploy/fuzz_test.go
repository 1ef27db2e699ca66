package deploy

import (
	"path/filepath"
	"strings"
	"testing"
)

// A name that is taken stays in its folder, and is no option, and nothing hidden.
func FuzzName(f *testing.F) {
	for _, s := range []string{"v1", "..", "a/b", "-f", ".x", "#1", "a\nb", "\xff", "v1 (2)", "..."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		if !filepath.IsLocal(name) || filepath.Base(name) != name || strings.ContainsAny(name, "/\\\x00\n\x1b") || name[0] == '.' || name[0] == '-' {
			t.Errorf("%q", name)
		}
	})
}
