package pm2

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"handoff/internal/config"
)

var update = flag.Bool("update", false, "rewrite testdata/*.toml")

// Each example file of testdata becomes the .toml beside it, which a handoff takes.
func TestExamples(t *testing.T) {
	for _, c := range []struct{ file, only, environ, want string }{
		{"plain.config.json", "", "", "plain"},
		{"full.config.js", "", "", "full"},
		{"full.config.js", "", "production", "full-production"},
		{"module.config.mjs", "", "", "module"},
		{"yaml.config.yaml", "", "", "yaml"},
		{"ports.config.json", "", "", "ports"},
		{"alone.config.json", "", "", "alone"},
		{"two.config.json", "api", "", "two-api"},
		{"extensionless.config.json", "", "", "extensionless"},
		{"fork.config.json", "jobs", "", "fork-jobs"},
		{"fork.config.json", "web", "", "fork-web"},
		{"fork.config.json", "queue", "", "fork-queue"},
		{"fork.config.json", "ready", "", "fork-ready"},
	} {
		t.Run(c.want, func(t *testing.T) {
			path := filepath.Join("testdata", c.file)
			if strings.HasSuffix(path, "js") {
				needNode(t)
			}
			if !Is(path) {
				t.Errorf("%s is not taken for PM2's", path)
			}
			app, err := Read(path, c.only, c.environ, Self())
			if err != nil {
				t.Fatal(err)
			}
			here, _ := filepath.Abs("testdata")
			got := strings.ReplaceAll("# "+strings.Join(app.Report(), "\n# ")+"\n"+string(app.TOML), here, "/app")
			golden := filepath.Join("testdata", c.want+".toml")
			if *update {
				os.WriteFile(golden, []byte(got), 0o644)
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("%v\n%s\nwant\n%s", err, got, want)
			}
			taken(t, app.TOML)
		})
	}
}

// taken looks whether handoff takes a text as its configuration.
func taken(t *testing.T, text []byte) {
	t.Helper()
	f, err := config.ParseFile("handoff.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	config.NewRun().Flags(flags)
	if err := f.Apply(flags); err != nil || len(f.Command) == 0 {
		t.Errorf("%v, command %q", err, f.Command)
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, only, environ, want string }{
		{"a.config.json", `{"apps": [{"script": "app.js", "instances": "many"}]}`, "", "", `instances: want a number, or "max"`},
		{"a.config.json", `{"apps": [{"script": "app.js", "instances": 1.5}]}`, "", "", `instances: want a number, or "max"`},
		{"a.config.json", `{"apps": [{"script": "a", "increment_var": "PORT", "instances": ""}]}`, "", "", `instances: want a number, or "max"`},
		{"a.config.json", `{"apps": [{"script": "a", "increment_var": "PORT"}]}`, "", "", "only PORT can count up"},
		{"a.config.json", `{"apps": [{"script": "a", "increment_var": "X", "env": {"X": 1}}]}`, "", "", "only PORT can count up"},
		{"a.config.json", `{"apps": [{"script": "a", "increment_var": "PORT", "instances": 1000000000, "env": {"PORT": 3000}}]}`, "", "", "increment_var: 1000000000 ports from 3000 on: want ports from 1 to 65535"},
		{"a.config.json", `{"apps": [{"script": "a", "increment_var": "PORT", "instances": 2, "env": {"PORT": 65535}}]}`, "", "", "want ports from 1 to 65535"},
		{"a.config.js", `for (let i = 0; i < 64; i++) require("fs").writeSync(1, Buffer.alloc(1 << 20)); module.exports = {apps: [{script: "a"}]}`, "", "", "it prints more than 4 MiB"},
		{"a.config.json", `{"apps": [{"name": "x"}]}`, "", "", "an app has no script"},
		{"a.config.json", `{"apps": [{"script": ["x"]}]}`, "", "", "script: want a path"},
		{"a.config.json", `{"apps": [{"script": "x", "args": 1}]}`, "", "", "args: want a string or a list of strings"},
		{"a.config.json", `{"apps": [{"script": "x", "node_args": {}}]}`, "", "", "node_args: want a string or a list of strings"},
		{"a.config.json", `{"apps": [{"script": "x", "kill_timeout": "soon"}]}`, "", "", "kill_timeout: want a number of milliseconds"},
		{"a.config.json", `{"apps": [{"script": "x", "watch": 1}]}`, "", "", "watch: want true, or a list of paths"},
		{"a.config.json", `{"apps": [{"script": "x", "watch_ignore": 1}]}`, "", "", "watch_ignore: want a string or a list of strings"},
		{"a.config.json", `{"apps": [{"script": "x", "uid": []}]}`, "", "", "uid: want a name or a number"},
		{"a.config.json", `{"apps": [{"script": "x", "env": []}]}`, "", "", "env: want an object of names and values"},
		{"a.config.json", `{"apps": [{"script": "x", "env": {"a=b": 1}}]}`, "", "", "env: want names without ="},
		{"a.config.json", `{"apps": [{"script": "x"}]}`, "", "staging", "there is no env_staging"},
		{"a.config.json", `{"apps": [{"name": "web", "script": "x"}, {"script": "lib/api.js"}]}`, "", "", "has 2 apps: web, api. handoff runs one service each: choose with --only NAME"},
		{"a.config.json", `{"apps": [{"name": "web", "script": "x"}]}`, "nope", "", `has no app "nope"; there are web`},
		{"a.config.json", `{"apps": [{"script": "bin/import.js", "autorestart": false}]}`, "", "", `app "import": autorestart: false cannot be had: handoff replaces every worker that ends`},
		{"a.config.json", `{"apps": [{"name": "night", "script": "x", "cron_restart": "0 3 * * *"}]}`, "", "", "app \"night\": cron_restart cannot be had: handoff restarts nothing by the clock. Remove it, and put `0 3 * * * handoff reload night` into a crontab"},
		{"a.config.json", `{"apps": [1]}`, "", "", "apps[0]: want an object"},
		{"a.config.json", `{"apps": []}`, "", "", "no apps in it"},
		{"a.config.json", `3`, "", "", "no apps in it"},
		{"a.config.json", "{\n  \"apps\": [,]\n}", "", "", "a.config.json:2:12: "},
		{"a.config.yaml", "apps: [", "", "", "a.config.yaml: yaml"},
		{"a.config.js", "module.exports = {", "", "", "node cannot read it"},
		{"a.config.js", "module.exports = () => 1", "", "", "it exports no data"},
		{"missing.config.js", "", "", "", "cannot read PM2's file"},
		{"missing.config.yaml", "", "", "", "cannot read PM2's file"},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		if c.text != "" {
			os.WriteFile(path, []byte(c.text), 0o644)
		}
		if strings.HasSuffix(c.name, ".js") && c.text != "" {
			needNode(t)
		}
		if _, err := Read(path, c.only, c.environ, Self()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestIs(t *testing.T) {
	for name, want := range map[string]bool{"/a/ecosystem.config.js": true, "process.json": true, "pm2.json": true, "web.config.yml": true,
		"server.js": false, "handoff.toml": false, "package.json": false, "config.js": false} {
		if Is(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func needNode(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not in PATH")
	}
}
