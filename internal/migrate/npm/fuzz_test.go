package npm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// A package.json is npm start, or node with words that no shell would read otherwise.
func FuzzPackage(f *testing.F) {
	for _, s := range []string{`{"scripts": {"start": "node server.js"}}`, `{"scripts": {"start": "node a.js && b"}}`, `{"scripts": {"start": " "}}`, `{"scripts": {"start": "node\u0000x"}}`, `{"scripts": {"start": "node x", "prestart": "y"}}`, `{}`, `{"scripts": 1}`} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), File)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := Read(path)
		if err != nil {
			return
		}
		var got struct{ Command []string }
		if err := toml.Unmarshal(text, &got); err != nil || len(got.Command) == 0 {
			t.Fatalf("%q: %q, %v", b, text, err)
		}
		if !slices.Equal(got.Command, []string{"npm", "start"}) && (got.Command[0] != "node" || slices.ContainsFunc(got.Command, func(w string) bool { return w == "" || w == "&&" || w == ";" })) {
			t.Errorf("%q: %q", b, got.Command)
		}
	})
}
