// Package pidfile writes a process's pid for those who send it signals.
package pidfile

import (
	"bytes"
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
	if f, err = lock(path, f); err != nil {
		return nil, err
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

// lock locks the file, which it closes if it cannot. Whoever may read a file may lock it,
// and everybody may read this one: a lock of another user's is left on the old file, and a
// new one takes its place.
func lock(path string, f *os.File) (*os.File, error) {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return f, nil
	}
	old, _ := io.ReadAll(io.LimitReader(f, 32))
	strangers := ofStrangers(f)
	if strangers {
		linux.RemoveFile(path, f)
	}
	f.Close()
	if !strangers {
		return nil, fmt.Errorf("cannot take the pid file %s: process %s has it; stop that one first, or use another --pid-file", path, strings.TrimSpace(string(old)))
	}
	f, err := linux.OpenOutput(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // nobody can open it first
	if err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			err = f.Chmod(0o644)
		}
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take the pid file %s: another user has locked it, and it cannot be replaced: %w", path, err)
	}
	return f, nil
}

// ofStrangers reports whether all who have locked a file are other users' processes, or are
// gone: who keeps the lock of a pid file lives. Of a process that cannot be seen, in another
// pid namespace, nothing is known.
func ofStrangers(f *os.File) bool {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if unix.Fstat(int(f.Fd()), &st) != nil || err != nil {
		return false
	}
	found := false
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 08:01:131090 0 EOF, or 1: -> FLOCK ... of one that waits.
		// The device is left out: some file systems say another one here.
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], ":"+strconv.FormatUint(st.Ino, 10)) {
			continue
		}
		pid, err := strconv.Atoi(fields[4])
		if err != nil || pid <= 0 || isOwn(pid) {
			return false
		}
		found = true
	}
	return found
}

// isOwn reports whether a process was started by root or this user.
func isOwn(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		if uids, ok := strings.CutPrefix(string(line), "Uid:"); ok {
			real := strings.Fields(uids)[0] // not the effective one: anybody may start a setuid program
			return real == "0" || real == strconv.Itoa(os.Getuid())
		}
	}
	return false
}
