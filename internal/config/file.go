package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// FileName is the default name of the configuration file.
const FileName = "handoff.toml"

// File is a configuration file. Its keys are the flags of `handoff run`, with _
// for -, and command: flags and environment win over it.
type File struct {
	Path    string
	Text    []byte
	Command []string // of the key command; nil if there is none
	Report  string   // the fate of another tool's keys
	// OfWorkers: the user that workers run as can write it, and handoff is root.
	OfWorkers bool
	Here      string // what is relative in it is relative to; "": its folder
	values    []value
}

// value is the value of one key of a file.
type value struct {
	flag  string
	key   string // as it stands there
	words []string
	list  bool
	truth bool // true or false, without quotes
	at    unstable.Position
}

// ParseFile parses a configuration file. Errors have its line and column. Apply checks
// the values.
func ParseFile(path string, text []byte) (*File, error) {
	if err := bounded(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil { // also finds duplicate keys
		var de *toml.DecodeError
		if errors.As(err, &de) {
			line, column := de.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", path, line, column, inWords(text, line, strings.TrimPrefix(de.Error(), "toml: ")))
		}
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	f := &File{Path: path, Text: text}
	var p unstable.Parser
	p.Reset(text)
	places := place{text: text, line: 1}
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var key []string
		var at unstable.Position
		for i := e.Key(); i.Next(); {
			if key == nil {
				at = places.of(int(i.Node().Raw.Offset))
			}
			key = append(key, string(i.Node().Data))
		}
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			table = key
			if e.Kind == unstable.ArrayTable || len(key) != 1 || key[0] != "env" && key[0] != "hooks" {
				return nil, fmt.Errorf("%s:%d:%d: unknown table [%s]; the only tables are [env] and [hooks]", path, at.Line, at.Column, strings.Join(key, "."))
			}
			continue
		}
		if err := f.add(append(slices.Clone(table), key...), e.Value(), at); err != nil {
			return nil, fmt.Errorf("%s:%d:%d: %w", path, at.Line, at.Column, err)
		}
	}
	return f, p.Error()
}

// add adds a key with its value.
func (f *File) add(key []string, node *unstable.Node, at unstable.Position) (err error) {
	v := value{key: key[0], flag: strings.ReplaceAll(key[0], "_", "-"), at: at}
	switch {
	case strings.Contains(key[0], "-"):
		meant := strings.ReplaceAll(key[0], "-", "_")
		return fmt.Errorf("unknown key %q%s", key[0], suggest(meant, []string{meant}))
	case key[0] == "env" && len(key) == 2:
		var word string
		word, err = scalar(node)
		if !variable(key[1]) {
			err = errVariable
		}
		v.words = []string{key[1] + "=" + word}
	case key[0] == "hooks" && len(key) > 1: // worker.crashed = "…", quoted or not
		v.flag = "hook"
		v.words, _, err = words(node)
		for i, word := range v.words {
			v.words[i] = strings.Join(key[1:], ".") + "=" + word
		}
	case key[0] == "hook" || key[0] == "hooks":
		return errors.New("hooks are a table: [hooks], then \"worker.crashed\" = \"COMMAND\"")
	case len(key) > 1:
		return fmt.Errorf("unknown key %q; the only tables are [env] and [hooks]", strings.Join(key, "."))
	case key[0] == "env" && node.Kind == unstable.InlineTable:
		if v.words, err = pairs(node); err != nil {
			return err
		}
	default:
		v.words, v.list, err = words(node)
		v.truth = node.Kind == unstable.Bool
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(key, "."), err)
	}
	if v.key == "command" {
		if f.Command = v.words; len(f.Command) == 0 || f.Command[0] == "" || v.truth {
			return errors.New("command: want a program, \"server.js\" or [\"node\", \"server.js\"]")
		}
		return nil
	}
	f.values = append(f.values, v)
	return nil
}

// words parses a value, or a list of values.
func words(node *unstable.Node) (words []string, list bool, err error) {
	if node.Kind != unstable.Array {
		word, err := scalar(node)
		return []string{word}, false, err
	}
	for i := node.Children(); i.Next(); {
		if i.Node().Kind == unstable.Comment {
			continue
		}
		word, err := scalar(i.Node())
		if err != nil {
			return nil, true, err
		}
		words = append(words, word)
	}
	return words, true, nil
}

// pairs parses the inline table of env.
func pairs(node *unstable.Node) (words []string, err error) {
	for i := node.Children(); i.Next(); {
		pair := i.Node()
		var name []string
		for k := pair.Key(); k.Next(); {
			name = append(name, string(k.Node().Data))
		}
		word, err := scalar(pair.Value())
		if err != nil || len(name) != 1 {
			return nil, fmt.Errorf("env.%s: want a string", strings.Join(name, "."))
		}
		if !variable(name[0]) {
			return nil, errVariable
		}
		words = append(words, name[0]+"="+word)
	}
	return words, nil
}

var errVariable = errors.New("want the name of a variable, without = and NUL")

func variable(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

func scalar(node *unstable.Node) (string, error) {
	switch node.Kind {
	case unstable.String, unstable.Integer, unstable.Float, unstable.Bool:
		if bytes.IndexByte(node.Data, 0) >= 0 {
			return "", errors.New("a text with a NUL can be passed to nobody")
		}
		return string(node.Data), nil
	}
	return "", errors.New("want a string, a number, true or false")
}
