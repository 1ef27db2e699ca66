package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"
)

// FileName is the configuration file that is looked for.
const FileName = "handoff.toml"

// File is a configuration file. Its keys are the flags of `handoff run`, with _
// for -, and command: flags and environment win over it.
type File struct {
	Path    string
	Text    []byte
	Command []string // of the key command; nil if there is none
	Report  string   // what became of keys that are not ours
	values  []value
}

// value is one key of a file.
type value struct {
	flag  string
	key   string // as it stands there
	words []string
	list  bool
	at    unstable.Position
}

// ReadFile reads a handoff.toml.
func ReadFile(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return ParseFile(path, b)
}

// ParseFile reads the text of a configuration file. Errors have its line and
// column. That the values make sense is looked at by Apply.
func ParseFile(path string, text []byte) (*File, error) {
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil { // also finds keys that are there twice
		var de *toml.DecodeError
		if errors.As(err, &de) {
			line, column := de.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", path, line, column, strings.TrimPrefix(de.Error(), "toml: "))
		}
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	f := &File{Path: path, Text: text}
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var key []string
		var at unstable.Position
		for i := e.Key(); i.Next(); {
			if key == nil {
				at = p.Shape(i.Node().Raw).Start
			}
			key = append(key, string(i.Node().Data))
		}
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			table = key
			if e.Kind == unstable.ArrayTable || len(key) != 1 || key[0] != "env" && key[0] != "hooks" {
				return nil, fmt.Errorf("%s:%d:%d: unknown table [%s]; there are [env] and [hooks]", path, at.Line, at.Column, strings.Join(key, "."))
			}
			continue
		}
		if err := f.add(&p, append(slices.Clone(table), key...), e.Value(), at); err != nil {
			return nil, fmt.Errorf("%s:%d:%d: %w", path, at.Line, at.Column, err)
		}
	}
	return f, p.Error()
}

// add takes one key with its value.
func (f *File) add(p *unstable.Parser, key []string, node *unstable.Node, at unstable.Position) error {
	v := value{key: key[0], flag: strings.ReplaceAll(key[0], "_", "-"), at: at}
	if strings.Contains(key[0], "-") {
		return fmt.Errorf("unknown key %q%s", key[0], suggest(strings.ReplaceAll(key[0], "-", "_"), []string{strings.ReplaceAll(key[0], "-", "_")}))
	}
	switch {
	case key[0] == "env" && len(key) == 2:
		word, err := scalar(node)
		if err != nil {
			return fmt.Errorf("env.%s: %w", key[1], err)
		}
		v.words = []string{key[1] + "=" + word}
	case key[0] == "hooks" && len(key) > 1: // worker.crashed = "…", quoted or not
		v.flag = "hook"
		words := []*unstable.Node{node}
		if node.Kind == unstable.Array {
			words = nil
			for i := node.Children(); i.Next(); {
				words = append(words, i.Node())
			}
		}
		for _, n := range words {
			word, err := scalar(n)
			if err != nil {
				return fmt.Errorf("%s: %w", strings.Join(key, "."), err)
			}
			v.words = append(v.words, strings.Join(key[1:], ".")+"="+word)
		}
	case key[0] == "hook" || key[0] == "hooks":
		return errors.New("hooks are a table: [hooks], then \"worker.crashed\" = \"COMMAND\"")
	case len(key) > 1:
		return fmt.Errorf("unknown key %q; the only tables are [env] and [hooks]", strings.Join(key, "."))
	case key[0] == "env" && node.Kind == unstable.InlineTable:
		for i := node.Children(); i.Next(); {
			pair := i.Node()
			var name []string
			for k := pair.Key(); k.Next(); {
				name = append(name, string(k.Node().Data))
			}
			word, err := scalar(pair.Value())
			if err != nil || len(name) != 1 {
				return fmt.Errorf("env.%s: want a string", strings.Join(name, "."))
			}
			v.words = append(v.words, name[0]+"="+word)
		}
	case node.Kind == unstable.Array:
		v.list = true
		for i := node.Children(); i.Next(); {
			if i.Node().Kind == unstable.Comment {
				continue
			}
			word, err := scalar(i.Node())
			if err != nil {
				return fmt.Errorf("%s: %w", key[0], err)
			}
			v.words = append(v.words, word)
		}
	default:
		word, err := scalar(node)
		if err != nil {
			return fmt.Errorf("%s: %w", key[0], err)
		}
		v.words = []string{word}
	}
	if v.key == "command" {
		if f.Command = v.words; len(f.Command) == 0 || f.Command[0] == "" {
			return errors.New("command: want a program, \"server.js\" or [\"node\", \"server.js\"]")
		}
		return nil
	}
	f.values = append(f.values, v)
	return nil
}

func scalar(node *unstable.Node) (string, error) {
	switch node.Kind {
	case unstable.String, unstable.Integer, unstable.Float, unstable.Bool:
		return string(node.Data), nil
	}
	return "", errors.New("want a string, a number, true or false")
}

// noKeys are flags of run that a file cannot have.
var noKeys = []string{"help", "config", "no-steering", "embedded", "only", "pm2-env", "scratch", "private", "rack-version"}

// Keys lists the keys of a file.
func Keys(fs *pflag.FlagSet) []string {
	keys := []string{"command", "hooks"}
	fs.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(noKeys, f.Name) && f.Name != "hook" {
			keys = append(keys, strings.ReplaceAll(f.Name, "-", "_"))
		}
	})
	return keys
}

// Apply sets the flags that were not given, nor set by the environment.
func (f *File) Apply(fs *pflag.FlagSet) error {
	given := map[string]bool{}
	fs.Visit(func(flag *pflag.Flag) { given[flag.Name] = true })
	for _, v := range f.values {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d:%d: %s", f.Path, v.at.Line, v.at.Column, fmt.Sprintf(format, args...))
		}
		flag := fs.Lookup(v.flag)
		if flag == nil || slices.Contains(noKeys, v.flag) {
			return wrong("unknown key %q%s", v.key, suggest(v.key, Keys(fs)))
		}
		if v.list && !strings.HasPrefix(flag.Value.Type(), "string") || v.list && flag.Value.Type() == "string" {
			return wrong("%s: want one value, not a list", v.key)
		}
		if flag.Value.Type() == "bool" && !slices.Contains([]string{"true", "false"}, v.words[0]) {
			return wrong("%s: want true or false", v.key)
		}
		if given[v.flag] {
			continue
		}
		for _, word := range v.words {
			if err := fs.Set(v.flag, word); err != nil {
				// pflag's words are about a command line, and may have a secret in them.
				var why error = err
				if inner := errors.Unwrap(err); inner != nil {
					why = inner
				}
				return wrong("%s: %v", v.key, why)
			}
		}
	}
	return nil
}

// suggest names what was meant, if it is near.
func suggest(key string, known []string) string {
	return nearest(key, known, "; `handoff init` writes all that there are")
}

func nearest(key string, known []string, none string) string {
	best, at := 3, ""
	for _, k := range known {
		if d := distance(key, k); d < best {
			best, at = d, k
		}
	}
	if at == "" {
		return none
	}
	return fmt.Sprintf("; did you mean %q?", at)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}

// Sample is a configuration file with everything in it, as comments.
func Sample(fs *pflag.FlagSet, command string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# handoff reads this file in its working directory (or: handoff run -c FILE).\n# Flags and HANDOFF_ variables win over it. `handoff check` looks for mistakes.\n\n")
	fmt.Fprintf(&b, "# What runs: a program, or a list of a program and its arguments.\ncommand = %s\n", command)
	fs.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(noKeys, f.Name) || f.Name == "env" || f.Name == "hook" {
			return
		}
		_, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "\n# %s\n# %s = %s\n", upper(usage), strings.ReplaceAll(f.Name, "-", "_"), literal(f))
	})
	fmt.Fprintf(&b, "\n# Environment of the workers.\n# [env]\n# NODE_ENV = \"production\"\n")
	fmt.Fprintf(&b, "\n# Commands of the shell at an event, or lists of them: %s.\n# [hooks]\n# \"worker.crashed\" = \"logger worker $HANDOFF_SLOT crashed\"\n", strings.Join(HookEvents, ", "))
	return b.Bytes()
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// literal is a flag's default as TOML.
func literal(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool", "int":
		return f.DefValue
	case "stringArray", "stringSlice":
		return "[]"
	}
	b, _ := json.Marshal(f.DefValue)
	return string(b)
}

// Effective returns what r says, by the keys of a file; of the environment and of hooks
// the names alone, since the rest may be secret.
func (r *Run) Effective() map[string]any {
	all := map[string]any{}
	run := *r
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	run.Flags(fs)
	// Flags has set lists anew, which have no defaults.
	lists := map[string][]string{"ports": r.Ports, "hold": r.HoldOnly, "no-hold": r.NoHold, "listen": r.Listen, "watch": r.Watch,
		"watch-ignore": r.WatchIgnore, "rlimit": r.Limits}
	fs.VisitAll(func(f *pflag.Flag) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		switch list, isList := lists[f.Name]; {
		case slices.Contains(noKeys, f.Name):
		case f.Name == "env" || f.Name == "hook":
			names := []string{}
			for _, kv := range map[string][]string{"env": r.Env, "hook": r.Hooks}[f.Name] {
				name, _, _ := strings.Cut(kv, "=")
				names = append(names, name)
			}
			all[f.Name] = names
		case isList:
			all[key] = append([]string{}, list...)
		default:
			all[key] = f.Value.String()
		}
	})
	return all
}

// Schema is the JSON Schema of a file, for editors.
func Schema(fs *pflag.FlagSet) ([]byte, error) {
	word := map[string]any{"type": []string{"string", "number", "boolean"}}
	properties := map[string]any{
		"command": map[string]any{"description": "What runs: a program, or a list of a program and its arguments.",
			"oneOf": []any{map[string]any{"type": "string", "minLength": 1}, map[string]any{"type": "array", "items": word, "minItems": 1}}},
		"env": map[string]any{"description": "Environment of the workers.", "type": "object", "additionalProperties": word},
	}
	hooks := map[string]any{}
	for _, event := range HookEvents {
		hooks[event] = map[string]any{"oneOf": []any{map[string]any{"type": "string", "minLength": 1}, map[string]any{"type": "array", "items": map[string]any{"type": "string"}}}}
	}
	properties["hooks"] = map[string]any{"description": "Commands of the shell at an event.", "type": "object", "properties": hooks}
	fs.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(noKeys, f.Name) || f.Name == "env" || f.Name == "hook" {
			return
		}
		_, usage := pflag.UnquoteUsage(f)
		p := map[string]any{"description": upper(usage)}
		switch f.Value.Type() {
		case "bool":
			p["type"] = "boolean"
		case "int":
			p["type"] = "integer"
		case "stringArray", "stringSlice":
			one := map[string]any{"type": []string{"string", "integer"}}
			p["oneOf"] = []any{map[string]any{"type": "array", "items": one}, one}
		case "duration":
			p["type"], p["default"] = []string{"string", "number"}, f.DefValue
		case "word":
			p["enum"], p["default"] = f.Value.(*choiceValue).words, f.DefValue
		default:
			p["type"] = []string{"string", "integer"}
		}
		properties[strings.ReplaceAll(f.Name, "-", "_")] = p
	})
	return json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "handoff.toml", "type": "object",
		"properties": properties, "additionalProperties": false,
	}, "", "  ")
}
