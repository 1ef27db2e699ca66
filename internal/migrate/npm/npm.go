// Package npm reads what a package.json starts, and writes it as a handoff.toml.
package npm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"handoff/internal/migrate"
)

// File is the file's name.
const File = "package.json"

// ErrNone is that a package.json starts nothing.
var ErrNone = errors.New("it has no scripts.start")

// Is reports whether a file is npm's, by its name.
func Is(path string) bool { return filepath.Base(path) == File }

// Starts reports whether a folder has a package.json that starts something.
func Starts(dir string) bool {
	_, err := Read(filepath.Join(dir, File))
	return err == nil
}

// Read returns what `npm start` would do: node itself, where the script is no more than
// that, so that it gets its sockets as Node's workers do; else npm.
func Read(path string) (text []byte, err error) {
	var said struct{ Scripts map[string]string }
	if err := migrate.ReadJSON(path, &said); err != nil {
		return nil, err
	}
	start := strings.TrimSpace(said.Scripts["start"])
	if start == "" {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "server.js")); err != nil {
			return nil, fmt.Errorf("%s: %w", path, ErrNone)
		}
		start = "node server.js" // npm's default
	}
	words := strings.Fields(start)
	if words[0] != "node" || strings.ContainsAny(start, "'\"`$&|;<>()*?[]{}~#\\=!") || said.Scripts["prestart"] != "" || said.Scripts["poststart"] != "" {
		words = []string{"npm", "start"}
	}
	return fmt.Appendf(nil, "command = %s\n", migrate.List(words)), nil
}
