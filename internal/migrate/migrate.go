// Package migrate has what readers of other tools' files share: JSON with the place
// of a mistake, environments, and the words of the handoff.toml that they become.
package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"handoff/internal/linux"
)

// maxSize is the largest file that is read.
const maxSize = 4 << 20

// ReadFile reads a file. Nobody waits for a pipe that somebody has put in its place.
func ReadFile(path string) ([]byte, error) {
	b, err := linux.ReadFile(path, maxSize)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return b, nil
}

// ReadJSON reads a file into v. A mistake is named with its line and column.
func ReadJSON(path string, v any) error {
	b, err := ReadFile(path)
	if err != nil {
		return err
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

// Number is a value as a number, whichever type a decoder has given it.
func Number(v any) (float64, bool) {
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

// Text is a scalar as it stands in an environment: 1e21 is written out.
func Text(v any) string {
	if n, ok := v.(float64); ok {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// NameOK reports whether a name can be one of an environment variable.
func NameOK(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

// Word is a TOML basic string.
func Word(s string) string {
	w, _ := json.Marshal(strings.ToValidUTF8(s, "\ufffd")) // the same escapes, but for one
	return strings.ReplaceAll(string(w), "\u007f", `\u007f`)
}

// List is a TOML array of strings.
func List(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, Word(w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// Environment is the table [env] of a handoff.toml; nothing for no variables.
func Environment(env map[string]string) string {
	if len(env) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("[env]\n")
	for _, k := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "%s = %s\n", Word(k), Word(env[k]))
	}
	return b.String()
}
