package printable

import "testing"

func TestText(t *testing.T) {
	for _, c := range []struct{ in, text, coloured string }{
		{"plain ü\t日本\n", "plain ü\t日本\n", "plain ü\t日本\n"},
		{"\x1b[31;1mred\x1b[0m", "red", "\x1b[31;1mred\x1b[0m\x1b[0m"},
		{"\x1b]0;title\a", `\x1b]0;title\a`, `\x1b]0;title\a`},
		{"\x1b[2J\x1b[1;1H", `\x1b[2J\x1b[1;1H`, `\x1b[2J\x1b[1;1H`},
		{"a\rb\b\x7f\x00", `a\rb\b\x7f\x00`, `a\rb\b\x7f\x00`},
		{"\u009b31m\u202e", `\u009b31m\u202e`, `\u009b31m\u202e`},
		{"\x9b\xff", `\x9b\xff`, `\x9b\xff`},
		{"\x1b[", `\x1b[`, `\x1b[`},
		{"\x1b[31", `\x1b[31`, `\x1b[31`},
	} {
		if got := Text(c.in); got != c.text {
			t.Errorf("%q: %q, want %q", c.in, got, c.text)
		}
		if got := Coloured(c.in); got != c.coloured {
			t.Errorf("%q: %q, want %q", c.in, got, c.coloured)
		}
	}
}
