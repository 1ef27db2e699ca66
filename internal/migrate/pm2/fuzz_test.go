package pm2

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"handoff/internal/config"
)

// seeds are the examples, what `pm2 save` writes (a list of apps with all that PM2 knows of
// them), and mistakes.
func seeds(f *testing.F, glob string) {
	paths, _ := filepath.Glob(glob)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "", "")
	}
}

// becomes looks whether an app of a file is a configuration that handoff takes, of a size
// that goes with the file's.
func becomes(t *testing.T, from []byte, value any, only, environ string) {
	app, err := choose("/srv/x.config.json", appsOf(value), only)
	if err != nil {
		return
	}
	a, err := convert("/srv/x.config.json", app, environ)
	if err != nil {
		return
	}
	if len(a.TOML) > 20*len(from)+1<<19 {
		t.Errorf("%q: %d bytes", from, len(a.TOML))
	}
	if bytes.IndexByte(from, 0) >= 0 || bytes.Contains(from, []byte(`u0000`)) || bytes.Contains(from, []byte(`\0`)) || bytes.Contains(from, []byte(`x00`)) {
		return // refused with the place in what it has become
	}
	file, err := config.ParseFile("handoff.toml", a.TOML)
	if err != nil {
		t.Fatalf("%q: %v\n%s", from, err, a.TOML)
	}
	if len(file.Command) == 0 || file.Command[0] == "" {
		t.Errorf("%q: command %q", from, file.Command)
	}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	config.NewRun().Flags(flags)
	file.Apply(flags) // a value may still be wrong for handoff, and is said to be
	a.Report()
}

func FuzzEcosystem(f *testing.F) {
	seeds(f, "testdata/*.json")
	f.Add([]byte(`[{"name": "web", "script": "app.js", "pm_exec_path": "/srv/app.js", "pm_cwd": "/srv", "exec_mode": "cluster_mode", "instances": 2, "env": {"PORT": "3000", "pm_id": 0}, "node_args": [], "pm_id": 0, "status": "online", "axm_options": {}}]`), "web", "")
	f.Add([]byte(`{"apps": [{"script": "a", "increment_var": "PORT", "instances": 3, "env": {"PORT": 1e9}, "env_x": {"A": {"b": [1]}}}]}`), "", "x")
	f.Add([]byte(`{"apps": {"script": "a b", "args": "'x y' \"z", "watch": ["./", "a"], "max_memory_restart": 1e21, "kill_timeout": "1e9", "instances": -1}}`), "", "")
	f.Add([]byte(`{"apps": [{"script": "", "name": ".."}, 1]}`), "", "")
	f.Fuzz(func(t *testing.T, b []byte, only, environ string) {
		var value any
		if json.Unmarshal(b, &value) == nil {
			becomes(t, b, value, only, environ)
		}
	})
}

func FuzzEcosystemYAML(f *testing.F) {
	seeds(f, "testdata/*.yaml")
	f.Add([]byte("apps:\n  - &a {script: x, env: {A: 0x10, B: 1e3, C: !!binary aGk=, D: 2001-01-01}}\n  - <<: *a\n    name: y\n"), "y", "")
	f.Add([]byte("a: &a [x,x]\nb: &b [*a,*a]\napps: [{script: *b}]\n? [k]\n: v\n"), "", "")
	f.Fuzz(func(t *testing.T, b []byte, only, environ string) {
		var value any
		if yaml.Unmarshal(b, &value) == nil {
			becomes(t, b, value, only, environ)
		}
	})
}

// What a .js file's program prints, and between which the value is.
func FuzzExported(f *testing.F) {
	f.Add([]byte("hello\n\n\x00{\"apps\": [{\"script\": \"x\"}]}\x00 more"), "", "")
	f.Add([]byte("\n\x00"), "", "")
	f.Add([]byte("\n\x00undefined\x00"), "", "")
	f.Fuzz(func(t *testing.T, out []byte, only, environ string) {
		if value, err := exported(string(out)); err == nil {
			becomes(t, bytes.ReplaceAll(out, []byte{0}, nil), value, only, environ)
		}
	})
}
