package pm2

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"handoff/internal/migrate"
)

// key is one key of PM2's, and what it becomes.
type key struct {
	names   []string // its spellings: the first one that is there counts
	to      string   // our key
	as      reader
	changed string // what is different here; "": nothing
	instead string // the line where PM2's key is not there, or says nothing: PM2's default; "": none
}

// reader turns a value of PM2's into one of TOML's; "" leaves the key out. want is what
// it should have been, if it cannot.
type reader func(v any) (toml, want string)

// keys are those that become one key of ours, in the order of the result. Command and
// environment are made of several: see convert.
func keys() []key {
	return []key{
		{names: []string{"instances"}, to: "workers", as: instances, instead: `workers = "1"`},
		{names: []string{"instance_var"}, to: "slot_variable", as: text("a name"), instead: `slot_variable = "NODE_APP_INSTANCE"`},
		{names: []string{"wait_ready"}, to: "ready_when", as: whenTrue(`"ready"`)},
		{names: []string{"listen_timeout"}, to: "ready_timeout", as: millis,
			changed: "a worker that is not ready by then fails the reload; PM2 assumes that it is ready"},
		{names: []string{"kill_timeout"}, to: "drain_timeout", as: millis,
			changed: "counts from the start of the drain; then SIGTERM, then SIGKILL"},
		{names: []string{"exp_backoff_restart_delay", "restart_delay"}, to: "respawn", as: millisNotZero},
		{names: []string{"max_memory_restart"}, to: "max_memory", as: text("a size like 300M"), changed: "is replaced first, then drained"},
		// SIGINT is what PM2 sends; to a program without a listener for it nothing is sent.
		{names: []string{"shutdown_with_message"}, to: "drain_message", as: whenTrue(`"shutdown"`), instead: `drain_signal = "INT"`},
		{names: []string{"watch"}, to: "watch", as: watch},
		{names: []string{"ignore_watch", "watch_ignore"}, to: "watch_ignore", as: globs},
		{names: []string{"watch_delay"}, to: "watch_delay", as: millis},
		{names: []string{"uid"}, to: "user", as: text("a name or a number")},
		{names: []string{"gid"}, to: "group", as: text("a name or a number")},
	}
}

// ignored are known keys without a meaning here.
func ignored() []string {
	return []string{"max_restarts", "min_uptime", "merge_logs", "combine_logs", "log_date_format", "log_type", "out_file", "error_file", "out", "error", "log", "log_file",
		"output", "pid_file", "pid", "vizion", "pmx", "automation", "treekill", "post_update", "force", "namespace", "source_map_support", "disable_source_map_support", "time", "filter_env",
		"disable_logs", "increment_var_start", "deploy", "trace", "windowsHide", "kill_retry_time", "stop_exit_codes", "append_env_to_name", "watch_options"}
}

// asText is a string, or a number as one.
func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64, int, int64, uint64:
		return fmt.Sprint(v), true
	}
	return "", false
}

func text(want string) reader {
	return func(v any) (string, string) {
		s, ok := asText(v)
		switch {
		case !ok:
			return "", want
		case s == "":
			return "", ""
		}
		return migrate.Word(s), ""
	}
}

func whenTrue(toml string) reader {
	return func(v any) (string, string) {
		if v == true {
			return toml, ""
		}
		return "", ""
	}
}

func millis(v any) (toml, want string) {
	n, ok := migrate.Number(v)
	if s, is := v.(string); is {
		var err error
		n, err = strconv.ParseFloat(s, 64)
		ok = err == nil
	}
	if !ok || !(n >= 0 && n <= 1e12) {
		return "", "a number of milliseconds"
	}
	return migrate.Word(strconv.FormatFloat(n, 'f', -1, 64) + "ms"), ""
}

func millisNotZero(v any) (toml, want string) {
	if toml, want = millis(v); toml == `"0ms"` {
		toml = ""
	}
	return toml, want
}

// instances: 0 is as many as CPUs, -1 one fewer.
func instances(v any) (toml, want string) {
	n, ok := migrate.Number(v)
	if s, is := v.(string); is {
		if s == "max" {
			return `"max"`, ""
		}
		i, err := strconv.Atoi(s)
		n, ok = float64(i), err == nil
	}
	switch {
	case !ok || n != float64(int(n)):
		return "", `a number, or "max"`
	case n == 0:
		return `"max"`, ""
	case n < 0:
		return migrate.Word("max" + strconv.Itoa(int(n))), ""
	}
	return migrate.Word(strconv.Itoa(int(n))), ""
}

// words are a command line in one string, or a list.
func words(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return splitWords(v), true
	case []any:
		var all []string
		for _, x := range v {
			all = append(all, fmt.Sprint(x))
		}
		return all, true
	}
	return nil, false
}

func watch(v any) (toml, want string) {
	switch v := v.(type) {
	case bool:
		if v {
			return `["**"]`, ""
		}
		return "", ""
	case string:
		return migrate.List([]string{glob(v)}), ""
	case []any:
		return globs(v)
	}
	return "", "true, or a list of paths"
}

func globs(v any) (toml, want string) {
	list, ok := words(v)
	if !ok {
		return "", "a string or a list of strings"
	}
	for i := range list {
		list[i] = glob(list[i])
	}
	if len(list) == 0 {
		return "", ""
	}
	return migrate.List(list), ""
}

// glob makes a glob of a path: a folder means what is below it.
func glob(path string) string {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "./"), "/")
	if path == "" || path == "." {
		return "**"
	}
	if strings.ContainsAny(path, "*?[{") || filepath.Ext(path) != "" {
		return path
	}
	return path + "/**"
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
