// Package pm2 reads PM2's ecosystem file as it is (JavaScript by the user's own node,
// JSON, YAML), and writes what one of its apps means as a handoff.toml.
// Its keys: https://pm2.keymetrics.io/docs/usage/application-declaration/.
package pm2

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Is reports whether a file is PM2's, by its name.
func Is(path string) bool {
	base := filepath.Base(path)
	for _, end := range []string{".config.js", ".config.cjs", ".config.mjs", ".config.json", ".config.yaml", ".config.yml"} {
		if strings.HasSuffix(base, end) {
			return true
		}
	}
	return slices.Contains([]string{"ecosystem.json", "ecosystem.yaml", "ecosystem.yml", "process.json", "process.yml", "process.yaml", "pm2.json"}, base)
}

// App is one app of a file, as a handoff.toml, and what became of its keys.
type App struct {
	Name    string
	TOML    []byte
	Used    []string
	Ignored []string          // keys that mean nothing here
	Changed map[string]string // keys that mean something else: what
}

// Report says what became of the keys, a line for each sentence.
func (a *App) Report() []string {
	lines := []string{"of PM2's keys used: " + strings.Join(a.Used, ", ")}
	if len(a.Ignored) > 0 {
		lines = append(lines, "ignored: "+strings.Join(a.Ignored, ", "))
	}
	for _, k := range slices.Sorted(maps.Keys(a.Changed)) {
		lines = append(lines, k+": "+a.Changed[k])
	}
	return lines
}

// Read reads an app of PM2's file: the only one, or that of the name. environ is
// PM2's --env: env_production's values are put over env's. JavaScript is run as as.
func Read(path, only, environ string, as Identity) (*App, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	value, err := evaluate(path, as)
	if err != nil {
		return nil, err
	}
	app, err := choose(path, appsOf(value), only)
	if err != nil {
		return nil, err
	}
	return convert(path, app, environ)
}

// appsOf finds the apps in what a file says: {apps: [...]}, {apps: {...}}, a list, or
// one app alone.
func appsOf(value any) []any {
	switch v := value.(type) {
	case []any:
		return v
	case map[string]any:
		switch apps := v["apps"].(type) {
		case []any:
			return apps
		case map[string]any:
			return []any{apps}
		}
		if v["script"] != nil {
			return []any{v}
		}
	}
	return nil
}

// choose finds the app that is meant.
func choose(path string, apps []any, only string) (map[string]any, error) {
	if len(apps) == 0 {
		return nil, fmt.Errorf("%s: no apps in it", path)
	}
	var names []string
	var found map[string]any
	for i, a := range apps {
		app, ok := a.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: apps[%d]: want an object", path, i)
		}
		name, _ := app["name"].(string)
		if name == "" {
			script, _ := app["script"].(string)
			name = withoutExt(script)
		}
		names = append(names, name)
		if name == only || only == "" && len(apps) == 1 {
			found = app
		}
	}
	switch {
	case found != nil:
		return found, nil
	case only == "":
		return nil, fmt.Errorf("%s has %d apps: %s. handoff runs one service each: choose with --only NAME", path, len(apps), strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%s has no app %q; there are %s", path, only, strings.Join(names, ", "))
}

func withoutExt(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}
