// Package pidfile writes a process's pid for those who send it signals.
package pidfile

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Write writes the own pid to path and keeps the file locked, so that a second
// instance by mistake is refused and cannot take the file away. remove removes
// it. What a killed process has left behind is overwritten.
func Write(path string) (remove func(), err error) {
	f, err := linux.OpenOutput(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write the pid file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		old, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		return nil, fmt.Errorf("cannot take the pid file %s: process %s has it; stop that one first, or use another --pid-file",
			path, strings.TrimSpace(string(old)))
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	if err != nil { // an empty one would be read as a pid
		linux.RemoveFile(path, f)
		f.Close()
		return nil, fmt.Errorf("cannot write the pid file: %w", err)
	}
	return func() {
		linux.RemoveFile(path, f)
		f.Close()
	}, nil
}
