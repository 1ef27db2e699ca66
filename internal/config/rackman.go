package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"handoff/internal/deploy"
)

// RackMan's files (facts: the seeds' § 1.2). A folder with .rack.json is a
// deployment, with versions in folders of their own; one with .rackman.json alone is
// run as it is.
const (
	RackFile    = deploy.File
	RackmanFile = ".rackman.json"
)

// readRackman reads a folder's RackMan files, path being the one that makes it a
// RackMan folder, and returns what they mean as the text of a handoff.toml.
func readRackman(path, fixed string) (text []byte, err error) {
	dir := filepath.Dir(path)
	version, over := "false", map[string]any(nil) // as RackMan has it in a folder without versions
	if filepath.Base(path) != RackmanFile {
		r := &deploy.Record{}
		if filepath.Base(path) == RackFile {
			if r, err = deploy.Read(dir); err != nil {
				return nil, err
			}
		}
		head := r.Head
		if b, verr := os.ReadFile(filepath.Join(dir, deploy.VersionFile)); head == "" && verr == nil {
			head = strings.TrimSpace(string(b)) // the oldest form says it alone
		}
		if fixed != "" {
			head = fixed
		}
		if head == "" {
			return nil, fmt.Errorf("%s: no version is live: deploy one, or switch to one", path)
		}
		if err := deploy.CheckName(head); err != nil {
			return nil, fmt.Errorf("%s: head: %w", path, err)
		}
		version, over, dir = head, r.Config(), filepath.Join(dir, head)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("%s: head is %s, and there is no such version in %s", path, head, filepath.Dir(path))
		}
	}
	app := filepath.Join(dir, RackmanFile)
	keys := map[string]any{}
	if err := readJSON(app, &keys); err != nil && (over == nil || !errors.Is(err, os.ErrNotExist)) {
		return nil, err
	}
	merge(keys, over)
	return rackmanTOML(app, dir, version, keys)
}

// merge puts over's values over those of keys, deeply, as lodash's merge does.
func merge(keys, over map[string]any) {
	for k, v := range over {
		below, ok1 := keys[k].(map[string]any)
		above, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			merge(below, above)
			continue
		}
		keys[k] = v
	}
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	if err := json.Unmarshal(bytes.TrimPrefix(b, []byte("\ufeff")), v); err != nil {
		var se *json.SyntaxError
		if errors.As(err, &se) {
			line, column := position(b, se.Offset)
			return fmt.Errorf("%s:%d:%d: %w", path, line, column, err)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func position(b []byte, offset int64) (line, column int) {
	before := b[:min(max(offset-1, 0), int64(len(b)))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

// rackmanTOML writes .rackman.json's keys as ours. What RackMan does not know is the
// program's own, and left alone.
func rackmanTOML(path, dir, version string, keys map[string]any) ([]byte, error) {
	var b bytes.Buffer
	wrong := func(key, want string) error { return fmt.Errorf("%s: %s: want %s", path, key, want) }
	server := "server.js"
	if v, ok := keys["server"]; ok {
		if server, ok = v.(string); !ok || server == "" {
			return nil, wrong("server", `the program, like "server.js"`)
		}
	}
	if filepath.Ext(server) == "" { // RackMan has Node find it
		if _, err := os.Stat(filepath.Join(dir, server)); err != nil {
			server += ".js"
		}
	}
	fmt.Fprintf(&b, "command = [\"node\", %s]\ncwd = %s\n", tomlWord(server), tomlWord(dir))
	if v, ok := keys["ports"]; ok {
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return nil, wrong("ports", "a list of ports, like [3000, 3001]")
		}
		var ports []string
		for _, p := range list {
			n, ok := p.(float64)
			if s, is := p.(string); is {
				var err error
				n, err = strconv.ParseFloat(s, 64)
				ok = err == nil
			}
			if !ok || n != float64(int(n)) || n < 1 || n > 65535 {
				return nil, wrong("ports", "numbers from 1 to 65535")
			}
			ports = append(ports, strconv.Itoa(int(n)))
		}
		fmt.Fprintf(&b, "ports = [%s]\n", strings.Join(ports, ", "))
	}
	if v, ok := keys["watch"]; ok && v != nil && v != false {
		list, ok := v.([]any)
		if !ok {
			return nil, wrong("watch", `a list of globs, like ["**/*.js"]`)
		}
		var globs []string
		for _, g := range list {
			s, ok := g.(string)
			if !ok {
				return nil, wrong("watch", `a list of globs, like ["**/*.js"]`)
			}
			globs = append(globs, tomlWord(strings.TrimPrefix(s, "./")))
		}
		fmt.Fprintf(&b, "watch = [%s]\n", strings.Join(globs, ", "))
	}
	for _, d := range []struct{ key, ours string }{{"timeout", "drain_timeout"}, {"reload", "reload_every"}} {
		v, ok := keys[d.key]
		if !ok || v == nil || v == false {
			continue
		}
		n, ok := v.(float64)
		if !ok || n < 0 || n > 1e12 {
			return nil, wrong(d.key, "a number of milliseconds")
		}
		fmt.Fprintf(&b, "%s = \"%dms\"\n", d.ours, int64(n))
	}
	env := map[string]string{"version": version}
	if v, ok := keys["environment"]; ok && v != nil {
		list, ok := v.(map[string]any)
		if !ok {
			return nil, wrong("environment", "an object of names and values")
		}
		for k, v := range list {
			switch v.(type) {
			case string, float64, bool:
			default:
				return nil, wrong("environment."+k, "a string, a number, true or false")
			}
			if k == "" || strings.ContainsAny(k, "=\x00") {
				return nil, wrong("environment", "names without =")
			}
			if n, ok := v.(float64); ok {
				env[k] = strconv.FormatFloat(n, 'f', -1, 64)
			} else {
				env[k] = fmt.Sprint(v)
			}
		}
	}
	b.WriteString("[env]\n")
	for _, k := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "%s = %s\n", tomlWord(k), tomlWord(env[k]))
	}
	return b.Bytes(), nil
}
