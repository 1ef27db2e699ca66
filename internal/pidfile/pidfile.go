// Package pidfile writes a process's pid for those who send it signals.
package pidfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Write writes the own pid to path, whole or not at all, and returns what
// removes it, unless somebody else has written there meanwhile. A file that a
// killed process left behind is replaced.
func Write(path string) (remove func(), err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot write the pid file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".pid-*")
	if err != nil {
		return nil, fmt.Errorf("cannot write the pid file: %w", err)
	}
	own := strconv.Itoa(os.Getpid())
	_, err = tmp.WriteString(own + "\n")
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return nil, fmt.Errorf("cannot write the pid file: %w", err)
	}
	return func() {
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == own {
			os.Remove(path)
		}
	}, nil
}
