//go:build man

package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"handoff/internal/api"
	"handoff/internal/config"
	"handoff/internal/events"
	"handoff/internal/metrics"
)

const written = "<!-- Written by make reference; do not edit. -->\n\n"

// referenceCommand writes the pages of docs/reference, from the source that is in the
// working directory.
func referenceCommand(root *cobra.Command) *cobra.Command {
	dir := "docs/reference"
	c := &cobra.Command{
		Use:    "reference",
		Short:  "Write the pages of docs/reference",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return failed{err}
			}
			for name, page := range map[string]func() (string, error){
				"cli.md": func() (string, error) { return cliPage(root), nil }, "configuration.md": configurationPage,
				"api.md": apiPage, "events.md": eventsPage, "metrics.md": metricsPage} {
				text, err := page()
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
				}
				if err != nil {
					return failed{err}
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", dir, "`directory` that they are written into")
	return c
}

func cliPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Commands\n\n" + written + "Each answers to `--help`, and, where it says what is or was done, to `--json`. `handoff completion bash|zsh|fish|powershell` prints shell completions; `make man` writes man pages.\n")
	for _, c := range root.Commands() {
		if c.Hidden || c.Name() == "completion" {
			continue
		}
		fmt.Fprintf(&b, "\n## handoff %s\n\n%s.\n\n```text\n%s\n```\n", c.Name(), c.Short, strings.TrimSpace(strings.TrimSpace(c.Long)+"\n\n"+options(c)))
	}
	return b.String()
}

// options are how a command is called.
func options(c *cobra.Command) string {
	c.InitDefaultHelpFlag()
	s := ""
	if c.Runnable() {
		s = "Usage:\n"
		s += "  handoff " + strings.ReplaceAll(c.Use, " | "+c.Name()+" ", "\n  handoff "+c.Name()+" ") + "\n"
	}
	if c.HasExample() {
		s += "\nExamples:\n" + c.Example + "\n"
	}
	everywhere(c.LocalFlags())
	if c.HasAvailableLocalFlags() && c.Runnable() {
		s += "\nOptions:\n" + c.LocalFlags().FlagUsages()
	}
	return s
}

// everywhere has the same defaults shown on every machine.
func everywhere(fs *pflag.FlagSet) {
	for name, value := range map[string]string{"drain-timeout": "30s", "kill-grace": "5s"} {
		if f := fs.Lookup(name); f != nil {
			f.DefValue = value
		}
	}
}

// cell is a text in a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "{", "&#123;").Replace(s)
}

func configurationPage() (string, error) {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" + written + "Flags of `handoff run` win over the environment, that over the file, that over the defaults. `handoff init` writes a handoff.toml with every key in it as a remark,\n`handoff check` finds mistakes by line and column, `handoff config` shows what a running service runs by. `handoff init --schema` prints a JSON Schema for editors.\n" +
		"A duration is `500ms`, `30s` or `2m`; a bare number is seconds. A list may be one value.\n\n| key | environment | default | meaning |\n|---|---|---|---|\n| `command` | | | what runs: `\"server.js\"`, or `[\"gunicorn\", \"app:app\"]` |\n| `[hooks]` | | | commands at events: `\"worker.crashed\" = \"./alert.sh\"` (`handoff help hooks`) |\n")
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	fs.SortFlags = false
	config.NewRun().Flags(fs)
	everywhere(fs)
	keys := config.Keys(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		if f.Hidden || f.Name == "hook" || f.Name == "help" {
			return
		}
		if !slices.Contains(keys, key) {
			key = "(no key)"
		}
		value := f.DefValue
		switch value {
		case "[]", "0", "0s", "false":
			value = ""
		}
		_, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | `--%s`: %s |\n", key, config.EnvName(f.Name), cell(value), f.Name, cell(usage))
	})
	return b.String(), nil
}

func apiPage() (string, error) {
	var b strings.Builder
	b.WriteString("# Control API\n\n" + written + "HTTP on a unix socket NAME.sock, in the first folder that its user can have alone: HANDOFF_RUNTIME_DIR (then no other), systemd's RUNTIME_DIRECTORY (/run/handoff/web/web.sock in a unit of `handoff systemd`), /run/handoff for root, XDG_RUNTIME_DIR/handoff, /tmp/handoff-UID, /run/user/UID/handoff, /dev/shm/handoff-UID. Clients look in all of them.\nThe socket is 0600, and handoff answers only its own user and root (SO_PEERCRED). Answers are JSON; fields are added, never changed.\n\n" +
		"```sh norun\ncurl --unix-socket /run/handoff/web.sock http://handoff/v1/status\n```\n\n| request | |\n|---|---|\n")
	for _, r := range api.Routes() {
		text := r.Text
		if r.Former != "" {
			text += "; `" + r.Former + "` is its former name, and still works"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", r.Pattern, text)
	}
	b.WriteString("\n## Errors\n\nAn answer that is not 200 is `{\"error\": \"…\", \"code\": \"…\"}`. Decide by the code: codes are stable, texts are not.\n\n| code | HTTP | meaning |\n|---|---|---|\n")
	for _, c := range api.Codes() {
		fmt.Fprintf(&b, "| `%s` | %d | %s |\n", c.Code, c.Status, cell(c.Text))
	}
	b.WriteString("\n## The status\n")
	err := structs(&b, "internal/api/status.go", "Status", "ReloadStatus", "AddressStatus", "WorkerStatus", "SlotStatus", "NextStatus")
	return b.String(), err
}

// structs writes the fields of structs that have JSON tags.
func structs(b *strings.Builder, path string, names ...string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || !slices.Contains(names, spec.Name.Name) {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		fmt.Fprintf(b, "\n### %s\n\n| field | type | |\n|---|---|---|\n", spec.Name.Name)
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			_, tag, _ := strings.Cut(f.Tag.Value, `json:"`)
			name, _, _ := strings.Cut(strings.TrimRight(tag, "`\""), ",")
			name = strings.TrimSuffix(name, `"`)
			if name == "-" {
				continue
			}
			var kind bytes.Buffer
			expression(&kind, f.Type)
			note := strings.TrimSpace(f.Comment.Text())
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, kind.String(), cell(strings.ReplaceAll(note, "\n", " ")))
		}
		return true
	})
	return nil
}

// expression writes a type as JSON's users know it.
func expression(w *bytes.Buffer, e ast.Expr) {
	switch e := e.(type) {
	case *ast.Ident:
		w.WriteString(map[string]string{"int": "number", "int64": "number", "float64": "number", "bool": "boolean"}[e.Name])
		if w.Len() == 0 || !strings.HasSuffix(w.String(), "number") && !strings.HasSuffix(w.String(), "boolean") {
			w.WriteString(e.Name)
		}
	case *ast.StarExpr:
		expression(w, e.X)
	case *ast.ArrayType:
		w.WriteString("list of ")
		expression(w, e.Elt)
	case *ast.SelectorExpr:
		w.WriteString("time")
	default:
		w.WriteString("object")
	}
}

func eventsPage() (string, error) {
	var b strings.Builder
	b.WriteString("# Events\n\n" + written + "What happens is a line of the log with a stable name, `event`: `handoff events`, `handoff events --follow --json`, `GET /v1/events`, `--log json`, and [hooks](cli.md#handoff-run) at some of them.\n" +
		"Decide by the name: names are added, never changed. The words of a line (`msg`) are for people, and may change. Every line has `time`, `level`, `msg` and, in JSON, `name`, the service; other fields are added, never changed, and left out where there is nothing to say.\n" +
		"\"The worker's\" fields are `slot`, `pid`, `generation`, `worker` (a number that is never used again) and, with `--ports`, `port`. Where a row has several levels, the first one is the usual. Lines of level debug are in the log with `--log-level debug`, and not among `handoff events`.\n\n| event | level | when | fields |\n|---|---|---|---|\n")
	row := func(e events.Info) {
		levels := strings.ToLower(strings.Join(e.Levels, ", "))
		var fields []string
		rest := e.Fields
		if ofWorker := events.WorkerFields(); len(rest) >= len(ofWorker) && slices.Equal(rest[:len(ofWorker)], ofWorker) {
			fields, rest = append(fields, "the worker's"), rest[len(ofWorker):]
		}
		for _, f := range rest {
			fields = append(fields, "`"+f+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e.Name, levels, e.Text, strings.Join(fields, ", "))
	}
	all := events.All()
	for _, e := range all {
		if len(e.Levels) > 0 {
			row(e)
		}
	}
	b.WriteString("\n## Worker events\n\nThe Node SDK hears all of the above, and these, which are not in the log (`GET /v1/worker-events`).\n\n| event | level | when | fields |\n|---|---|---|---|\n")
	for _, e := range all {
		if len(e.Levels) == 0 {
			row(e)
		}
	}
	return b.String(), nil
}

func metricsPage() (string, error) {
	var text bytes.Buffer
	if err := metrics.Write(&text, api.Metrics{}, 0); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Metrics\n\n" + written + "`handoff run --admin 127.0.0.1:9101` serves them at /metrics, in Prometheus's text format. No label has a pid, and none grows without bound. [A dashboard and alert rules](../monitoring/README.md).\n\n| metric | type | |\n|---|---|---|\n")
	help := map[string]string{}
	for line := range strings.Lines(text.String()) {
		w := strings.SplitN(strings.TrimSpace(line), " ", 4)
		switch {
		case len(w) == 4 && w[1] == "HELP":
			help[w[2]] = w[3]
		case len(w) == 4 && w[1] == "TYPE":
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", w[2], w[3], cell(help[w[2]]))
		}
	}
	return b.String(), nil
}
