package printable

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// What a worker has written does nothing to a terminal but colours, which end with it.
func FuzzText(f *testing.F) {
	for _, s := range []string{"\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J\x1b[H", "\u009b2J", "\x1b[31", "a\tb\r\n", "\xff\u202e", "\x1b[;:;m\x1bc"} {
		f.Add(s)
	}
	colours := regexp.MustCompile("\x1b\\[[0-9;:]*m")
	f.Fuzz(func(t *testing.T, s string) {
		plain, coloured := Text(s), Coloured(s)
		for _, out := range []string{plain, colours.ReplaceAllString(coloured, "")} {
			if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' }) {
				t.Errorf("%q became %q", s, out)
			}
		}
		if coloured != s && colours.MatchString(coloured) && !strings.HasSuffix(coloured, "\x1b[0m") {
			t.Errorf("%q became %q: the colour goes on", s, coloured)
		}
		if Text(plain) != plain {
			t.Errorf("%q became %q, and %q", s, plain, Text(plain))
		}
	})
}
