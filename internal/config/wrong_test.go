package config

import (
	"strings"
	"testing"
)

// A message of wrong TOML says the right form.
func TestWrongTOML(t *testing.T) {
	for text, want := range map[string]string{
		"command = server.js":           `x.toml:1:11: text needs quotes: command = "server.js"`,
		"command = node server.js":      `text needs quotes: command = ["node", "server.js"]`,
		"\nready_timeout = 30s # or so": `x.toml:2:19: text needs quotes: ready_timeout = "30s"`,
		"workers = max":                 `workers: want a number, or "max" or "max-1" in quotes`,
		"no_preload = yes":              `no_preload: want true or false, without quotes`,
		"surge = two":                   `surge: want a number`,
		"workers: 3":                    `want key = value: workers = 3`,
		"command \"server.js\"":         `want key = value: command = "server.js"`,
		"name = nano":                   `text needs quotes: name = "nano"`,
		"workers = 1\nworkers = 2":      `already defined`,
		"command = \"a":                 `unterminated`,
	} {
		_, err := ParseFile("x.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
