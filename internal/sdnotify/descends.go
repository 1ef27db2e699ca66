package sdnotify

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Descends tells whether a process is ancestor, or comes from it, or is in its process
// group (what outlives its parent still is).
func Descends(pid, ancestor int) bool {
	if pid <= 0 {
		return false
	}
	if pgid, err := unix.Getpgid(pid); err == nil && pgid == ancestor {
		return true
	}
	for range 64 {
		if pid == ancestor {
			return true
		}
		if pid <= 1 {
			return false
		}
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		// PID (name) S PPID …; the name may have anything in it.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(f[1]); err != nil {
			return false
		}
	}
	return false
}
