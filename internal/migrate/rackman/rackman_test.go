package rackman

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/pflag"

	"handoff/internal/config"
)

var update = flag.Bool("update", false, "rewrite want.toml in testdata/*.txtar")

// Each folder of testdata becomes its want.toml, which a handoff takes.
func TestExamples(t *testing.T) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	if len(archives) < 4 {
		t.Fatal("where are they?")
	}
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			a, err := txtar.ParseFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := txtar.Write(a, dir); err != nil {
				t.Fatal(err)
			}
			path := Find(dir)
			if !Is(path) {
				t.Fatalf("%q makes it RackMan's", path)
			}
			m, err := Read(path, "")
			if err != nil {
				t.Fatal(err)
			}
			text := m.Text
			got := strings.ReplaceAll(string(text), dir, "/srv/web")
			want := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "want.toml" })
			if *update {
				a.Files[want].Data = []byte(got)
				os.WriteFile(archive, txtar.Format(a), 0o644)
			}
			if got != string(a.Files[want].Data) {
				t.Errorf("%s\nwant\n%s", got, a.Files[want].Data)
			}
			f, err := config.ParseFile("handoff.toml", text)
			if err != nil {
				t.Fatal(err)
			}
			flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
			config.NewRun().Flags(flags)
			if err := f.Apply(flags); err != nil || len(f.Command) == 0 {
				t.Errorf("%v, command %q", err, f.Command)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ file, text, version, want string }{
		{File, `{"server": 1}`, "", `server: want the program, like "server.js"`},
		{File, `{"ports": 3000}`, "", "ports: want a list of ports, like [3000, 3001]"},
		{File, `{"ports": [1.5]}`, "", "ports: want numbers from 1 to 65535"},
		{File, `{"watch": "*.js"}`, "", `watch: want a list of globs, like ["**/*.js"]`},
		{File, `{"watch": [1]}`, "", `watch: want a list of globs`},
		{File, `{"timeout": "5s"}`, "", "timeout: want a number of milliseconds"},
		{File, `{"environment": []}`, "", "environment: want an object of names and values"},
		{File, `{"environment": {"A": []}}`, "", "environment.A: want a string, a number, true or false"},
		{File, `{"environment": {"A=B": 1}}`, "", "environment: want names without ="},
		{File, "{\n \"a\": }", "", File + ":2:7: "},
		{RackFile, `{"head": "v1"}`, "", "head is v1, and there is no such version in"},
		{RackFile, `{"head": false}`, "", "no version is live: deploy one, or switch to one"},
		{RackFile, `{"head": "v1"}`, "../x", "head: invalid version"},
		{RackFile, `{"head": "here"}`, "v9", "head is v9, and there is no such version in"},
		{RackFile, `{"head": "here"}`, "", "it has no handoff.toml, no .rackman.json, and no package.json that starts something"},
		{RackFile, `[`, "", "cannot parse"},
	} {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o644)
		os.Mkdir(filepath.Join(dir, "here"), 0o755)
		if _, err := Read(Find(dir), c.version); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
	if at := Find(t.TempDir()); at != "" {
		t.Errorf("%s", at)
	}
}
