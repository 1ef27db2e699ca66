package config

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// PM2's ecosystem file, read as it is: JavaScript by the user's own node, JSON, YAML.
// (Its keys: https://pm2.keymetrics.io/docs/usage/application-declaration/.)

// IsPM2File tells whether a file is PM2's, by its name.
func IsPM2File(path string) bool {
	base := filepath.Base(path)
	for _, end := range []string{".config.js", ".config.cjs", ".config.mjs", ".config.json", ".config.yaml", ".config.yml"} {
		if strings.HasSuffix(base, end) {
			return true
		}
	}
	return slices.Contains([]string{"ecosystem.json", "ecosystem.yaml", "ecosystem.yml", "process.json", "process.yml", "process.yaml", "pm2.json"}, base)
}

// PM2App is one app of a file, as a handoff.toml, and what became of its keys.
type PM2App struct {
	Name    string
	TOML    []byte
	Used    []string
	Ignored []string          // keys that mean nothing here
	Changed map[string]string // keys that mean something else: what
}

// Report says once what became of the keys.
func (a *PM2App) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "of PM2's keys used: %s", strings.Join(a.Used, ", "))
	if len(a.Ignored) > 0 {
		fmt.Fprintf(&b, "; ignored: %s", strings.Join(a.Ignored, ", "))
	}
	for _, k := range slices.Sorted(maps.Keys(a.Changed)) {
		fmt.Fprintf(&b, "; %s: %s", k, a.Changed[k])
	}
	return b.String()
}

// ReadPM2 reads an app of PM2's file: the only one, or that of the name. environ is
// PM2's --env: env_production's values are put over env's.
func ReadPM2(path, only, environ string) (*PM2App, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	value, err := evaluate(path)
	if err != nil {
		return nil, err
	}
	var apps []any
	switch v := value.(type) {
	case []any:
		apps = v
	case map[string]any:
		var ok bool
		if apps, ok = v["apps"].([]any); !ok {
			if one, is := v["apps"].(map[string]any); is {
				apps = []any{one}
			} else if v["script"] != nil {
				apps = []any{v}
			}
		}
	}
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
			name = strings.TrimSuffix(filepath.Base(script), filepath.Ext(script))
		}
		names = append(names, name)
		if name == only || only == "" && len(apps) == 1 {
			found = app
		}
	}
	if found == nil {
		if only == "" {
			return nil, fmt.Errorf("%s has %d apps: %s. handoff runs one service each: choose with --only NAME", path, len(apps), strings.Join(names, ", "))
		}
		return nil, fmt.Errorf("%s has no app %q; there are %s", path, only, strings.Join(names, ", "))
	}
	return convertPM2(path, found, environ)
}

// evaluatePatience is how long the file may take to say what it has.
const evaluatePatience = 5 * time.Second

// evaluate reads a file's value.
func evaluate(path string) (value any, err error) {
	switch ext := filepath.Ext(path); ext {
	case ".json":
		return value, readJSON(path, &value)
	case ".yaml", ".yml":
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read PM2's file: %w", err)
		}
		if err := yaml.Unmarshal(b, &value); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return value, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("cannot read PM2's file: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), evaluatePatience)
	defer cancel()
	const script = `import(require('url').pathToFileURL(process.argv[1])).then((m) => {
  const v = m.default === undefined ? m : m.default
  require('fs').writeSync(1, '\n\0' + JSON.stringify(v, (k, v) => typeof v === 'function' ? undefined : v) + '\0')
}).catch((err) => { console.error(err && err.stack || err); process.exit(1) })`
	cmd := exec.CommandContext(ctx, "node", "-e", script, "--", path)
	cmd.Dir = filepath.Dir(path)
	cmd.WaitDelay = time.Second
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("not done within %v", evaluatePatience)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("%s: node cannot read it (%w): %s", path, err, first)
	}
	_, text, ok := strings.Cut(string(out), "\n\x00")
	text, _, ok2 := strings.Cut(text, "\x00")
	if !ok || !ok2 || json.Unmarshal([]byte(text), &value) != nil {
		return nil, fmt.Errorf("%s: it exports nothing that is data", path)
	}
	return value, nil
}

// pm2Ignored are keys that mean nothing here, with what to do instead, if anything.
func pm2Ignored() []string {
	return []string{"exec_mode", "max_restarts", "min_uptime", "merge_logs", "combine_logs", "log_date_format", "log_type", "out_file", "error_file", "out", "error", "log", "log_file",
		"output", "pid_file", "pid", "vizion", "pmx", "automation", "treekill", "post_update", "force", "namespace", "source_map_support", "disable_source_map_support", "time", "filter_env",
		"disable_logs", "increment_var_start", "deploy", "trace", "windowsHide", "kill_retry_time", "stop_exit_codes", "append_env_to_name", "watch_options"}
}

func convertPM2(path string, app map[string]any, environ string) (*PM2App, error) {
	a := &PM2App{Changed: map[string]string{}}
	wrong := func(key, want string) error { return fmt.Errorf("%s: %s: want %s", path, key, want) }
	left := maps.Clone(app)
	// take gives a key, by the first of its names that is there.
	take := func(names ...string) (v any, name string) {
		for _, n := range names {
			if got, ok := left[n]; ok {
				delete(left, n)
				if got != nil && v == nil {
					v, name = got, n
					a.Used = append(a.Used, n)
				}
			}
		}
		return v, name
	}
	text := func(want string, names ...string) (string, error) {
		v, name := take(names...)
		switch v := v.(type) {
		case nil:
			return "", nil
		case string:
			return v, nil
		case float64, int, int64, uint64:
			return fmt.Sprint(v), nil
		}
		return "", wrong(name, want)
	}
	words := func(names ...string) ([]string, error) {
		v, name := take(names...)
		switch v := v.(type) {
		case nil:
			return nil, nil
		case string:
			return splitWords(v), nil
		case []any:
			var all []string
			for _, x := range v {
				all = append(all, fmt.Sprint(x))
			}
			return all, nil
		}
		return nil, wrong(name, "a string or a list of strings")
	}
	millis := func(names ...string) (string, string, error) {
		v, name := take(names...)
		n, ok := floatOf(v)
		if s, is := v.(string); is {
			var err error
			n, err = strconv.ParseFloat(s, 64)
			ok = err == nil
		}
		if v == nil {
			return "", "", nil
		}
		if !ok || n < 0 || n > 1e12 {
			return "", "", wrong(name, "a number of milliseconds")
		}
		return strconv.FormatFloat(n, 'f', -1, 64) + "ms", name, nil
	}
	var b bytes.Buffer
	key := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, value) }
	script, err := text("a path", "script", "exec")
	if err != nil {
		return nil, err
	}
	if script == "" {
		return nil, fmt.Errorf("%s: an app has no script", path)
	}
	name, err := text("a name", "name")
	if err != nil {
		return nil, err
	}
	cwd, err := text("a folder", "cwd")
	if err != nil {
		return nil, err
	}
	if cwd == "" {
		cwd = filepath.Dir(path)
	} else if !filepath.IsAbs(cwd) {
		cwd = filepath.Join(filepath.Dir(path), cwd)
	}
	args, err := words("args")
	if err != nil {
		return nil, err
	}
	nodeArgs, err := words("node_args", "interpreter_args", "nodeArgs", "interpreterArgs")
	if err != nil {
		return nil, err
	}
	interpreter, err := text("a program", "interpreter", "exec_interpreter")
	if err != nil {
		return nil, err
	}
	var command []string
	switch ext := filepath.Ext(script); {
	case interpreter == "none":
	case interpreter != "":
		command = append([]string{interpreter}, nodeArgs...)
	case slices.Contains(scripts, ext) || slices.Contains(typescript, ext) && len(nodeArgs) > 0:
		command = append([]string{"node"}, nodeArgs...)
	case ext == ".py":
		command = append([]string{"python3"}, nodeArgs...)
	case ext == ".sh":
		command = append([]string{"bash"}, nodeArgs...)
	case ext == "":
		if _, err := os.Stat(filepath.Join(cwd, script)); err != nil {
			if _, err := os.Stat(filepath.Join(cwd, script+".js")); err == nil {
				command, script = append([]string{"node"}, nodeArgs...), script+".js"
			}
		}
	}
	command = append(append(command, script), args...)
	a.Name = name
	if a.Name == "" {
		a.Name = strings.TrimSuffix(filepath.Base(script), filepath.Ext(script))
	}
	key("command", tomlList(command))
	key("cwd", tomlWord(cwd))
	key("name", tomlWord(ServiceName(a.Name)))

	instances, iname := take("instances")
	workers := "1"
	switch v := instances.(type) {
	case nil:
	case string:
		if workers = v; v != "max" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return nil, wrong(iname, `a number, or "max"`)
			}
			workers = pm2Instances(n)
		}
	default:
		n, ok := floatOf(v)
		if !ok || n != float64(int(n)) {
			return nil, wrong(iname, `a number, or "max"`)
		}
		workers = pm2Instances(int(n))
	}
	env := map[string]string{}
	if err := environment(env, left, "env", wrong); err != nil {
		return nil, err
	}
	if _, ok := app["env"]; ok {
		a.Used = append(a.Used, "env")
	}
	if environ != "" {
		if _, ok := app["env_"+environ]; !ok {
			return nil, fmt.Errorf("%s: there is no env_%s", path, environ)
		}
		if err := environment(env, left, "env_"+environ, wrong); err != nil {
			return nil, err
		}
		a.Used = append(a.Used, "env_"+environ)
	}
	for k := range left {
		if strings.HasPrefix(k, "env_") {
			delete(left, k) // of another --env
		}
	}
	if v, _ := text("a name", "increment_var"); v != "" {
		base, perr := strconv.Atoi(env[v])
		n, werr := strconv.Atoi(workers)
		if v != "PORT" && v != "port" || perr != nil || werr != nil {
			return nil, fmt.Errorf("%s: increment_var: only PORT can count up, with a number in env and a number of instances (handoff run --ports)", path)
		}
		var ports []string
		for i := range n {
			ports = append(ports, strconv.Itoa(base+i))
		}
		key("ports", "["+strings.Join(ports, ", ")+"]")
		delete(env, v)
		workers = ""
	}
	if workers != "" {
		key("workers", tomlWord(workers))
	}
	instance, err := text("a name", "instance_var")
	if err != nil {
		return nil, err
	}
	if instance == "" {
		instance = "NODE_APP_INSTANCE"
	}
	key("slot_variable", tomlWord(instance))
	if v, _ := take("wait_ready"); v == true {
		key("ready_when", `"ready"`)
	}
	if d, n, err := millis("listen_timeout"); err != nil {
		return nil, err
	} else if d != "" {
		key("ready_timeout", tomlWord(d))
		a.Changed[n] = "a worker that is not ready by then fails the reload; PM2 takes it for ready"
	}
	if d, n, err := millis("kill_timeout"); err != nil {
		return nil, err
	} else if d != "" {
		key("drain_timeout", tomlWord(d))
		a.Changed[n] = "counts from the drain, when nothing new comes any more; then SIGTERM, then SIGKILL"
	}
	if d, _, err := millis("exp_backoff_restart_delay", "restart_delay"); err != nil {
		return nil, err
	} else if d != "" && d != "0ms" {
		key("respawn", tomlWord(d))
	}
	memory, err := text("a size like 300M", "max_memory_restart")
	if err != nil {
		return nil, err
	}
	if memory != "" {
		key("max_memory", tomlWord(memory))
		a.Changed["max_memory_restart"] = "is replaced first, then drained"
	}
	if v, _ := take("shutdown_with_message"); v == true {
		key("drain_message", `"shutdown"`)
	} else {
		key("drain_signal", `"INT"`) // what PM2 sends; without a listener for it nothing is sent
	}
	watch, wname := take("watch")
	switch v := watch.(type) {
	case nil:
	case bool:
		if v {
			key("watch", `["**"]`)
		}
	case string:
		key("watch", tomlList([]string{pm2Glob(v)}))
	case []any:
		var globs []string
		for _, g := range v {
			globs = append(globs, pm2Glob(fmt.Sprint(g)))
		}
		key("watch", tomlList(globs))
	default:
		return nil, wrong(wname, "true, or a list of paths")
	}
	if globs, err := words("ignore_watch", "watch_ignore"); err != nil {
		return nil, err
	} else if len(globs) > 0 {
		for i := range globs {
			globs[i] = pm2Glob(globs[i])
		}
		key("watch_ignore", tomlList(globs))
	}
	if d, _, err := millis("watch_delay"); err != nil {
		return nil, err
	} else if d != "" {
		key("watch_delay", tomlWord(d))
	}
	for pm2, ours := range map[string]string{"uid": "user", "gid": "group"} {
		if v, err := text("a name or a number", pm2); err != nil {
			return nil, err
		} else if v != "" {
			key(ours, tomlWord(v))
		}
	}
	for pm2, why := range map[string]string{
		"cron_restart": "there is no cron here: a timer of systemd's, or cron, runs handoff reload",
		"autorestart":  "a worker that ends is always replaced",
	} {
		if v, ok := left[pm2]; ok && v != nil && v != true {
			a.Changed[pm2] = why
		} else if ok {
			a.Used = append(a.Used, pm2)
		}
		delete(left, pm2)
	}
	for _, k := range slices.Sorted(maps.Keys(left)) {
		if slices.Contains(pm2Ignored(), k) || left[k] == nil {
			a.Ignored = append(a.Ignored, k)
			continue
		}
		a.Ignored = append(a.Ignored, k+" (unknown)")
	}
	if len(env) > 0 {
		b.WriteString("[env]\n")
		for _, k := range slices.Sorted(maps.Keys(env)) {
			key(tomlWord(k), tomlWord(env[k]))
		}
	}
	slices.Sort(a.Used)
	a.TOML = b.Bytes()
	return a, nil
}

// ServiceName makes a name that a service may have of one that it may not.
func ServiceName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, strings.TrimLeft(name, ".-"))
	if name == "" {
		return "handoff"
	}
	return name[:min(len(name), 64)]
}

// pm2Instances: 0 is as many as CPUs, -1 one fewer.
func pm2Instances(n int) string {
	switch {
	case n == 0:
		return "max"
	case n < 0:
		return "max" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// pm2Glob makes a glob of a path: a folder means what is below it.
func pm2Glob(path string) string {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "./"), "/")
	if path == "" || path == "." {
		return "**"
	}
	if strings.ContainsAny(path, "*?[{") || filepath.Ext(path) != "" {
		return path
	}
	return path + "/**"
}

func environment(env map[string]string, app map[string]any, key string, wrong func(key, want string) error) error {
	v, ok := app[key]
	delete(app, key)
	if !ok || v == nil {
		return nil
	}
	all, ok := v.(map[string]any)
	if !ok {
		return wrong(key, "an object of names and values")
	}
	for k, v := range all {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return wrong(key, "names without =")
		}
		switch v := v.(type) {
		case nil:
		case map[string]any, []any:
			b, _ := json.Marshal(v) // as PM2 does
			env[k] = string(b)
		case float64:
			env[k] = strconv.FormatFloat(v, 'f', -1, 64)
		default:
			env[k] = fmt.Sprint(v)
		}
	}
	return nil
}

func floatOf(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	}
	return 0, false
}

// splitWords splits a command line at blanks, with quotes.
func splitWords(s string) (words []string) {
	var word strings.Builder
	quote, inside := rune(0), false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inside || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
		}
	}
	if inside || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// tomlWord is a TOML basic string.
func tomlWord(s string) string {
	w, _ := json.Marshal(strings.ToValidUTF8(s, "\ufffd")) // the same escapes, but for one
	return strings.ReplaceAll(string(w), "\u007f", `\u007f`)
}

func tomlList(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, tomlWord(w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}
