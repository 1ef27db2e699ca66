package watch

import (
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
)

// A pattern that is taken can be compared with any name, and one for a path is that path.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"**/*.js", "!node_modules/**", "/srv/web/a[b", "{a,b}/{c,{d,e}}", "../x/*", "./a b", "a\\*b", "**/**/**/x", "~/x"} {
		f.Add(s, "a/b.js")
	}
	f.Fuzz(func(t *testing.T, said, name string) {
		if len(said) > 4096 || len(name) > 4096 || Check([]string{said}) != nil {
			return
		}
		p := absolute(said, "/srv/web")
		if !strings.HasPrefix(p.base, "/") || !doublestar.ValidatePattern(p.glob) {
			t.Errorf("%q: %+v", said, p)
		}
		p.matches("/srv/web/"+name, name)
		if p.path != "" && !p.matches(p.path, "") {
			t.Errorf("%q: %+v does not match itself", said, p)
		}
	})
}

func FuzzEscape(f *testing.F) {
	f.Add("/srv/[a]{b,c}*?\\d")
	f.Fuzz(func(t *testing.T, path string) {
		if strings.ContainsRune(path, '\ufffd') || strings.ToValidUTF8(path, "") != path {
			return
		}
		if ok, err := doublestar.Match(escape(path), path); err != nil || !ok {
			t.Errorf("%q: %v, %v", path, ok, err)
		}
	})
}
