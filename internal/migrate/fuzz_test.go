package migrate

import (
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// What is written as TOML is read as what it was.
func FuzzTOML(f *testing.F) {
	f.Add("a \"b\"\n\x7f\x00\u2028", "NAME")
	f.Add("\xff", "A B")
	f.Fuzz(func(t *testing.T, text, name string) {
		var got struct {
			Word string
			List []string
			Env  map[string]string
		}
		in := "word = " + Word(text) + "\nlist = " + List([]string{text, ""}) + "\n" + Environment(map[string]string{name: text})
		if err := toml.Unmarshal([]byte(in), &got); err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		want, key := strings.ToValidUTF8(text, "\ufffd"), strings.ToValidUTF8(name, "\ufffd")
		if got.Word != want || len(got.List) != 2 || got.List[0] != want || got.Env[key] != want {
			t.Errorf("%q, %q: %+v", text, name, got)
		}
	})
}

// A mistake is said to be at a place that the file has.
func FuzzPosition(f *testing.F) {
	f.Add([]byte("{\n \"a\": }"), int64(9))
	f.Fuzz(func(t *testing.T, b []byte, offset int64) {
		if line, column := position(b, offset); line < 1 || column < 1 || line > len(b)+1 || column > len(b)+1 {
			t.Errorf("%q, %d: %d:%d", b, offset, line, column)
		}
	})
}
