package migrate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// What Word and List write is read back as it was, by a TOML parser.
func TestWords(t *testing.T) {
	for _, s := range []string{"", "a", `a"b\c`, "line\nline", "\x00\x7f\u2028", "é😀<>&", "tab\t"} {
		var got struct {
			W string
			L []string
			E map[string]string `toml:"env"`
		}
		text := "w = " + Word(s) + "\nl = " + List([]string{s, "x"}) + "\n" + Environment(map[string]string{"k" + s: s})
		if err := toml.Unmarshal([]byte(text), &got); err != nil || got.W != s || len(got.L) != 2 || got.L[0] != s || got.E["k"+s] != s {
			t.Errorf("%q: %v %+v", s, err, got)
		}
	}
	if List(nil) != "[]" || Environment(nil) != "" {
		t.Error("nothing is not written as nothing")
	}
}

func TestNumbers(t *testing.T) {
	for _, v := range []any{1.0, 1, int64(1), uint64(1)} {
		if n, ok := Number(v); !ok || n != 1 {
			t.Errorf("%T: %v %v", v, n, ok)
		}
	}
	if _, ok := Number("1"); ok {
		t.Error("a string is a number")
	}
	if Text(1e21) != "1000000000000000000000" || Text(true) != "true" || NameOK("") || NameOK("A=B") || !NameOK("A") {
		t.Error("text or name")
	}
}

func TestMistakesInJSONHaveAPlace(t *testing.T) {
	for text, want := range map[string]string{"{\n \"a\": }": ":2:7: ", "[": ":1:1: ", "{}": "", "\ufeff{}": "", "3": ": json: cannot unmarshal"} {
		path := filepath.Join(t.TempDir(), "a.json")
		os.WriteFile(path, []byte(text), 0o644)
		var v map[string]any
		if err := ReadJSON(path, &v); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("%q: %v, want %s%s", text, err, path, want)
		}
	}
	if err := ReadJSON("/no/such", nil); err == nil {
		t.Error("read what is not there")
	}
}
