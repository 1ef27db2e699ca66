package pm2

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"handoff/internal/config"
	"handoff/internal/migrate"
)

// conversion is an app that is being converted.
type conversion struct {
	*App
	path string
	left map[string]any // keys that nobody has taken yet
	node bool           // Node runs it
	args []string
	out  bytes.Buffer
}

// convert writes an app as a handoff.toml.
func convert(path string, app map[string]any, environ string) (*App, error) {
	c := &conversion{App: &App{Changed: map[string]string{}}, path: path, left: maps.Clone(app)}
	if err := c.refused(); err != nil {
		return nil, err
	}
	if err := c.command(); err != nil {
		return nil, err
	}
	env, err := c.environment(environ)
	if err != nil {
		return nil, err
	}
	ports, err := c.ports(env)
	if err != nil {
		return nil, err
	}
	c.ready(ports, env)
	for _, k := range keys() {
		if k.to == "workers" && ports {
			c.take(k.names...) // one for each port
			continue
		}
		if err := c.key(k); err != nil {
			return nil, err
		}
	}
	c.rest()
	c.out.WriteString(migrate.Environment(env))
	slices.Sort(c.Used)
	c.TOML = c.out.Bytes()
	return c.App, nil
}

func (c *conversion) set(key, toml string) { fmt.Fprintf(&c.out, "%s = %s\n", key, toml) }

func (c *conversion) wrong(key, want string) error {
	return fmt.Errorf("%s: %s: want %s", c.path, key, want)
}

// take gives a key, by the first of its names that is there.
func (c *conversion) take(names ...string) (v any, name string) {
	for _, n := range names {
		if got, ok := c.left[n]; ok {
			delete(c.left, n)
			if got != nil && v == nil {
				v, name = got, n
				c.Used = append(c.Used, n)
			}
		}
	}
	return v, name
}

// refused finds keys that have no equivalent, and without which the app would behave
// differently.
func (c *conversion) refused() error {
	name, _ := c.left["name"].(string)
	if name == "" {
		script, _ := c.left["script"].(string)
		name = withoutExt(script)
	}
	if v, key := c.take("autorestart"); v == false || v == "false" {
		return fmt.Errorf("%s: app %q: %s: false cannot be had: handoff replaces every worker that ends. Run what ends by itself from cron or a systemd timer, not as a service", c.path, name, key)
	}
	v, key := c.take("cron_restart", "cron")
	if v == nil || v == false || v == "" || v == "0" {
		return nil
	}
	if n, ok := migrate.Number(v); ok && n == 0 {
		return nil
	}
	return fmt.Errorf("%s: app %q: %s cannot be had: handoff restarts nothing by the clock. Remove it, and put `%v handoff reload %s` into a crontab, or use --reload-every 24h", c.path, name, key, v, config.ServiceName(name))
}

// ready writes when a worker is ready. In fork mode PM2 waits for nothing, and what it runs
// need not listen at all; an app in cluster mode that names no port need not either (a queue
// worker). Such a worker is ready when it runs, for a second in a reload.
func (c *conversion) ready(ports bool, env map[string]string) {
	mode, key := c.take("exec_mode")
	fork := mode == "fork" || mode == "fork_mode"
	if mode == nil { // PM2's rule
		key, fork = "instances", !c.node || c.left["instances"] == nil
	}
	if ports || c.left["wait_ready"] == true || !fork && c.hasPort(env) {
		return
	}
	what := "an app that names no port"
	if fork {
		key, what = "fork mode", "as in PM2"
	}
	c.Changed[key] = "ready when started, " + what + `; if it serves, set ready_when = "listening" in a handoff.toml, and a reload fails if it does not listen`
	c.set("ready_when", `"started"`)
	c.set("ready_delay", `"1s"`)
}

// hasPort reports whether an app is known to listen.
func (c *conversion) hasPort(env map[string]string) bool {
	named := func(s string) bool { return strings.Contains(strings.ToLower(s), "port") }
	return c.left["listen_timeout"] != nil || slices.ContainsFunc(slices.Collect(maps.Keys(env)), named) || slices.ContainsFunc(c.args, func(a string) bool { return named(a) || a == "-p" })
}

// key converts one by the table.
func (c *conversion) key(k key) error {
	toml := ""
	v, name := c.take(k.names...)
	if v != nil {
		var want string
		if toml, want = k.as(v); want != "" {
			return c.wrong(name, want)
		}
	}
	if toml != "" && k.changed != "" {
		c.Changed[name] = k.changed
	}
	switch {
	case toml != "":
		c.set(k.to, toml)
	case k.instead != "":
		c.out.WriteString(k.instead + "\n")
	}
	return nil
}

// text takes a key that is a string.
func (c *conversion) text(want string, names ...string) (string, error) {
	v, name := c.take(names...)
	if v == nil {
		return "", nil
	}
	s, ok := asText(v)
	if !ok {
		return "", c.wrong(name, want)
	}
	return s, nil
}

// words takes a key that is a command line, or a list.
func (c *conversion) words(names ...string) ([]string, error) {
	v, name := c.take(names...)
	if v == nil {
		return nil, nil
	}
	list, ok := words(v)
	if !ok {
		return nil, c.wrong(name, "a string or a list of strings")
	}
	return list, nil
}

// command writes command, cwd and name.
func (c *conversion) command() error {
	var script, cwd, interpreter string
	var args, nodeArgs []string
	for _, s := range []struct {
		to    *string
		want  string
		names []string
	}{
		{&script, "a path", []string{"script", "exec"}}, {&c.Name, "a name", []string{"name"}}, {&cwd, "a folder", []string{"cwd"}},
		{&interpreter, "a program", []string{"interpreter", "exec_interpreter"}},
	} {
		var err error
		if *s.to, err = c.text(s.want, s.names...); err != nil {
			return err
		}
	}
	if script == "" {
		return fmt.Errorf("%s: an app has no script", c.path)
	}
	args, err := c.words("args")
	if err != nil {
		return err
	}
	c.args = args
	if nodeArgs, err = c.words("node_args", "interpreter_args", "nodeArgs", "interpreterArgs"); err != nil {
		return err
	}
	if !filepath.IsAbs(cwd) {
		cwd = filepath.Join(filepath.Dir(c.path), cwd)
	}
	runtime, script := runtimeOf(interpreter, script, cwd, len(nodeArgs) > 0)
	c.node = strings.Contains(interpreter, "node") || interpreter == "" && (runtime == "node" || runtime == "")
	var command []string
	if runtime != "" {
		command = append([]string{runtime}, nodeArgs...)
	}
	if c.Name == "" {
		c.Name = withoutExt(script)
	}
	c.set("command", migrate.List(append(append(command, script), args...)))
	c.set("cwd", migrate.Word(cwd))
	c.set("name", migrate.Word(config.ServiceName(c.Name)))
	return nil
}

// runtimeOf is what runs a script, by PM2's rules; "": it runs itself, or handoff knows.
// A script without an extension may be one of Node's that leaves it out.
func runtimeOf(interpreter, script, cwd string, nodeArgs bool) (runtime, found string) {
	ext := filepath.Ext(script)
	switch {
	case interpreter == "none":
		return "", script
	case interpreter != "":
		return interpreter, script
	}
	switch ext {
	case ".js", ".mjs", ".cjs":
		return "node", script
	case ".ts", ".mts", ".cts":
		if nodeArgs { // else handoff asks node what it needs for TypeScript
			return "node", script
		}
	case ".py":
		return "python3", script
	case ".sh":
		return "bash", script
	case "":
		if _, err := os.Stat(filepath.Join(cwd, script)); err != nil {
			if _, err := os.Stat(filepath.Join(cwd, script+".js")); err == nil {
				return "node", script + ".js"
			}
		}
	}
	return "", script
}

// environment is env, with env_NAME over it.
func (c *conversion) environment(name string) (map[string]string, error) {
	env := map[string]string{}
	names := []string{"env"}
	if name != "" {
		if _, ok := c.left["env_"+name]; !ok {
			return nil, fmt.Errorf("%s: there is no env_%s", c.path, name)
		}
		names = append(names, "env_"+name)
	}
	for _, key := range names {
		v, _ := c.take(key)
		if v == nil {
			continue
		}
		all, ok := v.(map[string]any)
		if !ok {
			return nil, c.wrong(key, "an object of names and values")
		}
		for k, v := range all {
			if !migrate.NameOK(k) {
				return nil, c.wrong(key, "names without =")
			}
			switch v := v.(type) {
			case nil:
			case map[string]any, []any:
				b, _ := json.Marshal(v) // as PM2 does
				env[k] = string(b)
			default:
				env[k] = migrate.Text(v)
			}
		}
	}
	maps.DeleteFunc(c.left, func(k string, _ any) bool { return strings.HasPrefix(k, "env_") }) // of another --env
	return env, nil
}

// ports writes what increment_var counts up, which is taken out of env.
func (c *conversion) ports(env map[string]string) (bool, error) {
	variable, err := c.text("a name", "increment_var")
	if err != nil || variable == "" {
		return false, err
	}
	workers, want := instances(c.left["instances"])
	if c.left["instances"] == nil {
		workers, want = `"1"`, ""
	}
	if want != "" {
		return false, c.wrong("instances", want)
	}
	base, perr := strconv.Atoi(env[variable])
	n, werr := strconv.Atoi(strings.Trim(workers, `"`))
	if variable != "PORT" && variable != "port" || perr != nil || werr != nil {
		return false, fmt.Errorf("%s: increment_var: only PORT can count up, with a number in env and a number of instances (handoff run --ports)", c.path)
	}
	if base < 1 || n < 1 || n > 1<<16-base {
		return false, fmt.Errorf("%s: increment_var: %d ports from %d on: want ports from 1 to 65535", c.path, n, base)
	}
	var ports []string
	for i := range n {
		ports = append(ports, strconv.Itoa(base+i))
	}
	c.set("ports", "["+strings.Join(ports, ", ")+"]")
	delete(env, variable)
	return true, nil
}

// rest says what becomes of the keys that are left.
func (c *conversion) rest() {
	for _, k := range slices.Sorted(maps.Keys(c.left)) {
		if !slices.Contains(ignored(), k) && c.left[k] != nil {
			k += " (unknown)"
		}
		c.Ignored = append(c.Ignored, k)
	}
}
