package admin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// sharedDir is root's folder. Units of any user have theirs below it
// (RuntimeDirectory=handoff/NAME), so that everybody may pass through it.
const sharedDir = "/run/handoff"

// places returns the folders where the control sockets of a user may be, in order of
// preference. A service uses the first one that is private to its user; a client searches
// all of them, in the same order. If HANDOFF_RUNTIME_DIR is set, it is the only one.
//
// Without XDG_RUNTIME_DIR, /run/user/UID comes late: it is removed when the user's last
// session ends, and a service that is started outside of a session (cron, su) must outlive
// it. /dev/shm is writable in a container with a read-only root.
func places(getenv func(string) string, uid int) (dirs []string) {
	if d := getenv(DirVariable); d != "" {
		return []string{d}
	}
	if d, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":"); d != "" {
		dirs = append(dirs, d)
	}
	own := "handoff-" + strconv.Itoa(uid)
	if uid == 0 {
		return append(dirs, sharedDir, "/tmp/"+own, "/dev/shm/"+own)
	}
	if d := getenv("XDG_RUNTIME_DIR"); d != "" {
		dirs = append(dirs, filepath.Join(d, "handoff"))
	}
	return append(dirs, "/tmp/"+own, "/run/user/"+strconv.Itoa(uid)+"/handoff", "/dev/shm/"+own)
}

// DirVariable names the folder of the control sockets.
const DirVariable = "HANDOFF_RUNTIME_DIR"

// Dir makes the folder where this user's services have their control sockets: the first
// of HANDOFF_RUNTIME_DIR (nothing else, if it is set), systemd's RUNTIME_DIRECTORY,
// /run/handoff for root and XDG_RUNTIME_DIR/handoff for others, /tmp/handoff-UID,
// /run/user/UID/handoff, /dev/shm/handoff-UID that belongs to this user alone.
func Dir() (string, error) { return usable(places(os.Getenv, os.Geteuid())) }

// usable returns the first folder that can be used.
func usable(dirs []string) (string, error) {
	var reasons []string
	for _, dir := range dirs {
		err := prepare(dir)
		if err == nil {
			return dir, nil
		}
		reasons = append(reasons, err.Error())
	}
	return "", errors.New("cannot create the control socket: " + strings.Join(reasons, "; "))
}

// prepare creates a folder, and checks its owner. Everybody may pass through root's, since
// workers, whose notify sockets are below it, may run as another user.
func prepare(dir string) error {
	mode := os.FileMode(0o700)
	switch {
	case os.Geteuid() == 0 && dir == sharedDir:
		mode = 0o755
	case os.Geteuid() == 0:
		mode = 0o711
	}
	if err := linux.MkdirAll(dir, mode); err != nil {
		return err
	}
	info, err := own(dir)
	if err == nil && mode == 0o755 && info.Mode().Perm() != mode { // of a handoff before this one
		err = os.Chmod(dir, mode)
	}
	if err == nil { // the file system may be read-only
		if err = unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			err = fmt.Errorf("%s: %w", dir, err)
		}
	}
	return err
}

// own checks that a folder belongs to this user, and that nobody else can write to it:
// another user could put a socket there.
func own(dir string) (os.FileInfo, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if uid, _ := owner(info); !info.IsDir() || uid != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s is not a directory that only this user can write to", dir)
	}
	return info, nil
}

func owner(info os.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, false
	}
	return int(st.Uid), true
}

// where are the folders that a client looks in: places, and below those that units have a
// folder of their own in (RuntimeDirectory=handoff/NAME). What another user has put
// there is left out, but root sees everybody's units.
func where(getenv func(string) string, uid int) (dirs []string) {
	if d := getenv(DirVariable); d != "" {
		return []string{d}
	}
	for _, dir := range places(getenv, uid) {
		if trusted(dir, uid) {
			dirs = append(dirs, dir)
		}
	}
	units := []string{sharedDir}
	if d := getenv("XDG_RUNTIME_DIR"); d != "" && uid != 0 {
		units = append(units, filepath.Join(d, "handoff"))
	}
	for _, parent := range units {
		below, _ := filepath.Glob(filepath.Join(parent, "*"))
		for _, dir := range below {
			if info, err := os.Lstat(dir); err == nil && info.IsDir() && (trusted(dir, uid) || uid == 0 && trusted(parent, uid)) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// trusted reports whether a folder is the user's or root's, and nobody else can write to it.
func trusted(dir string, uid int) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return false
	}
	of, ok := owner(info)
	return ok && (of == uid || of == 0)
}
