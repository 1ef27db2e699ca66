package config

import (
	"strconv"
	"strings"
	"testing"
)

// A file that the workers' user may have written holds nobody up: without the bounds, keys
// take a time that grows with their square, minutes for 4 MiB of them.
func TestHostileFiles(t *testing.T) {
	const size = 1 << 20
	keys := func(line string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			b.WriteString(strings.ReplaceAll(line, "#", strconv.Itoa(i)))
		}
		return b.String()
	}
	for _, c := range []struct{ name, text, want string }{
		{"brackets", "a = " + strings.Repeat("[", size), "handoff.toml: brackets are nested more than 1000 deep"},
		{"brackets that end", "watch = " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "more than 1000 deep"},
		{"braces", "a = " + strings.Repeat("{a=", size/3), "more than 1000 deep"},
		{"keys", keys("a# = 1\n"), "handoff.toml: it has more than 10000 keys"},
		{"variables", "[env]\n" + keys("a# = 1\n"), "more than 10000 keys"},
		{"an inline table", "env = {" + keys("a# = 1,") + "b = 1}", "more than 10000 keys"},
		{"tables", keys("[a#]\n"), "more than 10000 keys"},
		{"dots", strings.Repeat("a.", size/2) + "a = 1", "a key has more than 100 parts"},
		{"dots of a table", "[" + strings.Repeat("a.", size/2) + "a]\nb = 1", "a key has more than 100 parts"},
		{"dots of an inline table", "env = {" + strings.Repeat("a.", size/2) + "a = 1}", "a key has more than 100 parts"},
		{"a value", "name = \"" + strings.Repeat("x", size) + "\"", ""},
		{"empty lines", strings.Repeat("\n", size) + "x", "handoff.toml:1048577:1: "},
		{"a list", "watch = [" + strings.Repeat(`"a",`, size/4) + "]", ""},
		{"a NUL", "listen = [\"unix:/tmp/a\\u0000b\"]", "handoff.toml:1:1: listen: a text with a NUL can be passed to nobody"},
		{"a variable's NUL", "[env]\nA = \"\\u0000\"", "handoff.toml:2:1: env.A: a text with a NUL"},
		{"a variable's name", "[env]\n\"A=B\" = \"\"", "handoff.toml:2:1: env.A=B: want the name of a variable, without = and NUL"},
		{"no name", "env = {\"\" = \"x\"}", "want the name of a variable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch _, err := ParseFile("handoff.toml", []byte(c.text)); {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%.300v, want %q", err, c.want)
			}
		})
	}
}
