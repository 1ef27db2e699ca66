// Package printable makes what workers have written fit for a terminal: an escape sequence
// could rewrite what stands there, rename the window, or have the terminal type.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns a text without colours, with control characters other than tabs and ends of
// lines written out: \x1b.
func Text(s string) string { return convert(s, false) }

// Coloured is Text, with colours (ESC [ ... m), which are ended at the end of the line.
func Coloured(s string) string { return convert(s, true) }

func convert(s string, colours bool) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	coloured := false
	for len(s) > 0 {
		if n := colour(s); n > 0 {
			if colours {
				b.WriteString(s[:n])
				coloured = true
			}
			s = s[n:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0]), 16))
		case fine(r):
			b.WriteString(s[:n])
		default:
			q := strconv.QuoteRuneToASCII(r) // in quotes
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	if coloured {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !fine(r) }) < 0
}

// fine tells whether a character does nothing but stand there. The marks that change the
// direction of what follows do more.
func fine(r rune) bool {
	return r == '\t' || r == '\n' || !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r) && r != '\u2028' && r != '\u2029'
}

// colour is the length of a colour at the beginning of s: ESC [ 31 ; 1 m.
func colour(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	n := 2 + len(s[2:]) - len(strings.TrimLeft(s[2:], "0123456789;:"))
	if n < len(s) && s[n] == 'm' {
		return n + 1
	}
	return 0
}
