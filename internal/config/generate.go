package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Sample is a configuration file with every key, as comments.
func Sample(fs *pflag.FlagSet, command string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# handoff reads this file in its working directory (or: handoff run -c FILE).\n# Flags and HANDOFF_ variables override it. `handoff check` validates it.\n\n")
	fmt.Fprintf(&b, "# What runs: a program, or a list of a program and its arguments.\ncommand = %s\n", command)
	fs.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(noKeys, f.Name) || f.Name == "env" || f.Name == "hook" {
			return
		}
		_, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "\n# %s\n# %s = %s\n", upper(usage), strings.ReplaceAll(f.Name, "-", "_"), literal(f))
	})
	fmt.Fprintf(&b, "\n# Environment of the workers.\n# [env]\n# NODE_ENV = \"production\"\n")
	fmt.Fprintf(&b, "\n# Shell commands to run at an event, or lists of them: %s.\n# [hooks]\n# \"worker.crashed\" = \"logger worker $HANDOFF_SLOT crashed\"\n", strings.Join(HookEvents, ", "))
	return b.Bytes()
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// literal is the TOML of a flag's default.
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

// Effective returns the values of r, by the keys of a file; of the environment and of
// hooks only the names, since the rest may be secret.
func (r *Run) Effective() map[string]any {
	all := map[string]any{}
	run := *r
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	run.Flags(fs)
	// Flags has reset the lists, which have no defaults.
	lists := map[string][]string{"ports": r.Ports, "hold": r.HoldOnly, "no-hold": r.NoHold, "allow": r.Allow, "may-drop": r.MayDrop, "listen": r.Listen, "watch": r.Watch,
		"watch-ignore": r.WatchIgnore, "rlimit": r.Limits, "health-status": r.Health.Status}
	fs.VisitAll(func(f *pflag.Flag) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		switch list, isList := lists[f.Name]; {
		case slices.Contains(noKeys, f.Name):
		case f.Name == "env" || f.Name == "hook" || f.Name == "health-header":
			names := []string{}
			for _, kv := range map[string][]string{"env": r.Env, "hook": r.Hooks, "health-header": r.Health.Headers}[f.Name] {
				name, _, _ := strings.Cut(kv, map[bool]string{false: "=", true: ":"}[f.Name == "health-header"])
				names = append(names, name)
			}
			all[key] = names
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
