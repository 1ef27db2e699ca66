package config

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2/unstable"
)

// What a file may have. The parser takes a time that grows with the square of the keys, and
// follows brackets and dots as deep as they are: a file of 4 MiB, which the user that workers
// run as may have written, would hold the master up for minutes.
const (
	maxKeys  = 10_000
	maxParts = 100  // of one key: a.b.c has three
	maxDepth = 1000 // of brackets
)

// bounded refuses a text that has more. What is wrong with it otherwise is not its business.
func bounded(text []byte) error {
	if deep(text) {
		return fmt.Errorf("brackets are nested more than %d deep", maxDepth)
	}
	var p unstable.Parser
	p.Reset(text)
	keys := 0
	for p.NextExpression() {
		parts := 0
		if keys += count(p.Expression(), &parts); keys > maxKeys {
			return fmt.Errorf("it has more than %d keys", maxKeys)
		}
		if parts > maxParts {
			return fmt.Errorf("a key has more than %d parts", maxParts)
		}
	}
	return nil
}

// deep tells whether brackets may be deeper, whatever is text and what is not.
func deep(text []byte) bool {
	depth := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			if depth++; depth > maxDepth {
				return true
			}
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return false
}

// count is the number of keys in a node, and sets parts to the most that one of them has.
func count(n *unstable.Node, parts *int) (keys int) {
	switch n.Kind {
	case unstable.KeyValue, unstable.Table, unstable.ArrayTable:
		keys = 1
		has := 0
		for i := n.Key(); i.Next(); {
			has++
		}
		*parts = max(*parts, has)
		if n.Kind != unstable.KeyValue {
			return keys
		}
		return keys + count(n.Value(), parts)
	case unstable.InlineTable, unstable.Array:
		for i := n.Children(); i.Next(); {
			keys += count(i.Node(), parts)
		}
	}
	return keys
}

// place finds lines and columns of offsets that become larger.
type place struct {
	text     []byte
	at, line int
}

func (p *place) of(offset int) unstable.Position {
	p.line += bytes.Count(p.text[p.at:max(offset, p.at)], []byte("\n"))
	p.at = max(offset, p.at)
	return unstable.Position{Offset: offset, Line: p.line, Column: offset - bytes.LastIndexByte(p.text[:offset], '\n')}
}
