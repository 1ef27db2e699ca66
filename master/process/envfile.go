package process

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEnvFile is the largest environment file, and the most that its variables may come to:
// the kernel takes no more from all of it.
const maxEnvFile = 4 << 20

var (
	errEnvFile  = errors.New("not in the form KEY=VALUE")
	errEnvLarge = errors.New("its variables are larger than 4 MiB")
)

// envFile is an environment file while it is read: the form of godotenv, which is dotenv's,
// with its quirks. What variables of it contain ($NAME of a former one) is bounded, since
// forty lines of twice the one before are more than any memory; and so is the time that it
// takes.
type envFile struct {
	vars map[string]string
	size int // of what vars has had
}

// parseEnvFile reads the variables of a file. The text may be a worker's user's.
//
//	# a comment
//	export NAME=word # a comment
//	NAME: 'as it stands'
//	NAME="two\nlines, $OTHER and ${OTHER}"
func parseEnvFile(src []byte) (map[string]string, error) {
	f := &envFile{vars: map[string]string{}}
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	for {
		if src = statement(src); len(src) == 0 {
			return f.vars, nil
		}
		name, rest, err := envName(src)
		if err != nil {
			return nil, err
		}
		var value string
		if value, src, err = f.value(rest); err != nil {
			return nil, err
		}
		if strings.IndexByte(value, 0) >= 0 {
			return nil, errEnvFile // execve(2) cannot pass it
		}
		if name == "" { // a last word alone
			continue
		}
		if f.size += len(name) + len(value); f.size > maxEnvFile {
			return nil, errEnvLarge
		}
		f.vars[name] = value
	}
}

// statement skips blanks and comments.
func statement(src []byte) []byte {
	for {
		src = bytes.TrimLeftFunc(src, unicode.IsSpace)
		if len(src) == 0 || src[0] != '#' {
			return src
		}
		end := bytes.IndexByte(src, '\n')
		if end < 0 {
			return nil
		}
		src = src[end:]
	}
}

// envName reads a name, and = or : behind it.
func envName(src []byte) (name string, rest []byte, err error) {
	src = bytes.TrimLeftFunc(src, isBlank)
	if after, ok := bytes.CutPrefix(src, []byte("export")); ok && bytes.IndexFunc(after, isBlank) == 0 {
		src = bytes.TrimLeftFunc(after, isBlank)
	}
	end := bytes.IndexAny(src, "=:")
	if end < 0 {
		end = len(src)
	}
	for _, c := range src[:end] { // Latin-1, as godotenv has it
		if r := rune(c); !isBlank(r) && r != '_' && r != '.' && !unicode.IsLetter(r) && !unicode.IsNumber(r) {
			return "", nil, errEnvFile
		}
	}
	if end == len(src) {
		return "", nil, nil
	}
	return strings.TrimRightFunc(string(src[:end]), unicode.IsSpace), bytes.TrimLeftFunc(src[end+1:], isBlank), nil
}

// value reads a value, and what a variable in it contains.
func (f *envFile) value(src []byte) (value string, rest []byte, err error) {
	if len(src) == 0 || src[0] != '"' && src[0] != '\'' {
		end := bytes.IndexAny(src, "\n\r")
		if end < 0 {
			end = len(src)
		}
		value, err = f.expand(unquoted(string(src[:end])))
		return value, src[end:], err
	}
	quote := src[0]
	for i := 1; i < len(src); i++ {
		if src[i] != quote || src[i-1] == '\\' {
			continue
		}
		value, rest = strings.Trim(string(src[:i]), string(quote)), src[i+1:]
		if quote == '"' {
			value, err = f.expand(unescaped(value))
		}
		return value, rest, err
	}
	return "", nil, errEnvFile // it has no end
}

// unquoted is a line without blanks around it, and without the comment at its end.
func unquoted(line string) string {
	for i := len(line) - 1; i > 0; i-- {
		if before, _ := utf8.DecodeLastRuneInString(line[:i]); line[i] == '#' && isBlank(before) {
			line = line[:i]
			break
		}
	}
	line = strings.TrimFunc(line, isBlank)
	if !utf8.ValidString(line) {
		line = string([]rune(line))
	}
	return line
}

// unescaped makes \n and \r of "…" what they stand for, and takes the other \ away, but for
// those before $.
func unescaped(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var lines, all strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) || s[i+1] == '\n' {
			lines.WriteByte(s[i])
			continue
		}
		switch i++; s[i] {
		case 'n':
			lines.WriteByte('\n')
		case 'r':
			lines.WriteByte('\r')
		default:
			lines.WriteString(s[i-1 : i+1])
		}
	}
	s = lines.String()
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && s[i+1] != '$' {
			i++
		}
		all.WriteByte(s[i])
	}
	return all.String()
}

// expand replaces $NAME and ${NAME} by what they contain, \$ by $.
func (f *envFile) expand(s string) (string, error) {
	at := strings.IndexByte(s, '$')
	if at < 0 {
		return s, nil
	}
	var b strings.Builder
	for ; at >= 0; at = strings.IndexByte(s, '$') {
		end, name := variable(s, at+1)
		switch before := s[:at]; {
		case strings.HasSuffix(before, `\`):
			b.WriteString(before[:at-1])
			b.WriteString(s[at:end])
		case name != "":
			b.WriteString(before)
			b.WriteString(f.vars[name])
		default:
			b.WriteString(s[:end])
		}
		if s = s[end:]; f.size+b.Len() > maxEnvFile {
			return "", errEnvLarge
		}
	}
	b.WriteString(s)
	return b.String(), nil
}

// variable reads what may stand behind a $: NAME, {NAME}.
func variable(s string, at int) (end int, name string) {
	for _, open := range "({" {
		if at < len(s) && s[at] == byte(open) {
			at++
		}
	}
	end = at
	for end < len(s) && (s[end] == '_' || s[end] >= 'A' && s[end] <= 'Z' || s[end] >= '0' && s[end] <= '9') {
		end++
	}
	if name = s[at:end]; end < len(s) && s[end] == '}' {
		end++
	}
	return end, name
}

// isBlank tells whether a character is a space within a line.
func isBlank(r rune) bool {
	switch r {
	case '\t', '\v', '\f', '\r', ' ', 0x85, 0xA0:
		return true
	}
	return false
}
