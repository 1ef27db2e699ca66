package config

import "strings"

// ServiceName makes a valid service name.
func ServiceName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, strings.TrimLeft(name, ".-"))
	if name == "" {
		return "handoff"
	}
	return name[:min(len(name), 64)]
}
