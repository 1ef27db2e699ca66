package rackman

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"handoff/internal/migrate"
)

// key is one key of .rackman.json, and what it becomes.
type key struct {
	name, to string
	// as turns the value into TOML; "" leaves the key out. The error says what is wanted.
	as func(v any) (toml string, err error)
}

func keys() []key {
	return []key{
		{"ports", "ports", ports},
		{"watch", "watch", globs},
		{"timeout", "drain_timeout", millis},
		{"reload", "reload_every", millis},
	}
}

// convert writes .rackman.json's keys as ours. What RackMan does not know is the
// program's own, and left alone.
func convert(path, dir, version string, said map[string]any) ([]byte, error) {
	var b bytes.Buffer
	server, err := program(said, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: server: want %w", path, err)
	}
	fmt.Fprintf(&b, "command = [\"node\", %s]\ncwd = %s\n", migrate.Word(server), migrate.Word(dir))
	for _, k := range keys() {
		v, ok := said[k.name]
		if !ok {
			continue
		}
		toml, err := k.as(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: want %w", path, k.name, err)
		}
		if toml != "" {
			fmt.Fprintf(&b, "%s = %s\n", k.to, toml)
		}
	}
	env := map[string]string{"version": version} // which environment may say otherwise
	if key, err := environment(env, said["environment"]); err != nil {
		return nil, fmt.Errorf("%s: %s: want %w", path, key, err)
	}
	b.WriteString(migrate.Environment(env))
	return b.Bytes(), nil
}

// program is the script; without an extension RackMan has Node find it.
func program(said map[string]any, dir string) (string, error) {
	server := "server.js"
	if v, ok := said["server"]; ok {
		if server, ok = v.(string); !ok || server == "" {
			return "", errors.New(`the program, like "server.js"`)
		}
	}
	if filepath.Ext(server) == "" {
		if _, err := os.Stat(filepath.Join(dir, server)); err != nil {
			server += ".js"
		}
	}
	return server, nil
}

func ports(v any) (string, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return "", errors.New("a list of ports, like [3000, 3001]")
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
			return "", errors.New("numbers from 1 to 65535")
		}
		ports = append(ports, strconv.Itoa(int(n)))
	}
	return "[" + strings.Join(ports, ", ") + "]", nil
}

func globs(v any) (string, error) {
	if v == nil || v == false {
		return "", nil
	}
	list, ok := v.([]any)
	var globs []string
	for _, g := range list {
		s, is := g.(string)
		ok = ok && is
		globs = append(globs, strings.TrimPrefix(s, "./"))
	}
	if !ok {
		return "", errors.New(`a list of globs, like ["**/*.js"]`)
	}
	return migrate.List(globs), nil
}

func millis(v any) (string, error) {
	if v == nil || v == false {
		return "", nil
	}
	n, ok := v.(float64)
	if !ok || n < 0 || n > 1e12 {
		return "", errors.New("a number of milliseconds")
	}
	return fmt.Sprintf("\"%dms\"", int64(n)), nil
}

// environment adds what a file says to env. The key is where the error is.
func environment(env map[string]string, v any) (key string, err error) {
	if v == nil {
		return "", nil
	}
	all, ok := v.(map[string]any)
	if !ok {
		return "environment", errors.New("an object of names and values")
	}
	for k, v := range all {
		switch v.(type) {
		case string, float64, bool:
		default:
			return "environment." + k, errors.New("a string, a number, true or false")
		}
		if !migrate.NameOK(k) {
			return "environment", errors.New("names without =")
		}
		env[k] = migrate.Text(v)
	}
	return "", nil
}
