package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// OfOthers names services of other users, and how to reach them, for an error that says
// that this user runs none that these words name: "; root's: web (…)". It is "" if there
// are none, or if the folder was given.
func OfOthers(words ...string) string {
	if os.Getenv(DirVariable) != "" {
		return ""
	}
	uid := os.Geteuid()
	looked := where(os.Getenv, uid)
	return elsewhere([]string{sharedDir, sharedDir + "/*", "/run/user/*/handoff", "/tmp/handoff-*", "/dev/shm/handoff-*"}, func(dir string, of int) bool {
		return of == uid || uid == 0 && slices.Contains(looked, dir)
	}, words)
}

// elsewhere searches the folders that match, except those in own, and only those that
// nobody but their owner can write to: the names become part of a command.
func elsewhere(patterns []string, own func(dir string, of int) bool, words []string) string {
	var said []string
	named := map[int]bool{} // whose services were
	for _, pattern := range patterns {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			info, err := os.Lstat(dir)
			if slices.Contains(ofServices(), filepath.Base(dir)) || err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
				continue
			}
			uid, ok := owner(info)
			if !ok || own(dir, uid) {
				continue
			}
			text, certain := ofFolder(dir, uid, words)
			if text != "" && (certain || !named[uid]) && !slices.Contains(said, text) {
				said = append(said, text)
			}
			named[uid] = named[uid] || certain
		}
	}
	if len(said) == 0 {
		return ""
	}
	return "; " + strings.Join(said, "; ")
}

// ofServices are folders in that of a user's control sockets that are no unit's: of notify
// sockets (sdnotify), and of the lists of workers (snapshot).
func ofServices() []string { return []string{"notify", "workers"} }

// ofFolder says which services a folder of a user has, or, not certain, that it may have some.
func ofFolder(dir string, uid int, words []string) (text string, certain bool) {
	if id, ok := strings.CutPrefix(filepath.Base(dir), "handoff-"); ok && id != strconv.Itoa(uid) {
		return "", false // anybody can make one
	}
	who, sudo := strconv.Itoa(uid), "sudo -u "
	if u, err := user.LookupId(who); err == nil {
		who = u.Username
	}
	if sudo += who; uid == 0 {
		sudo = "sudo"
	}
	if _, err := os.ReadDir(dir); errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("there may be some of %s (%s handoff ls)", who, sudo), false
	}
	names := listening(dir)
	if len(names) == 0 {
		return "", false
	}
	example := names[0]
	if i := slices.IndexFunc(names, func(name string) bool { return slices.Contains(words, name) }); i >= 0 {
		example = names[i]
	}
	how := "HANDOFF_RUNTIME_DIR=" + dir // root may talk to everybody's
	if os.Geteuid() != 0 {
		how = sudo
	}
	return fmt.Sprintf("%s's: %s (%s handoff status %s)", who, strings.Join(names, ", "), how, example), true
}

// listening lists the services of a folder that somebody listens for.
func listening(dir string) (names []string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, p := range paths {
		if name := strings.TrimSuffix(filepath.Base(p), ".sock"); CheckName(name) == nil {
			c, err := net.Dial("unix", p)
			if err == nil {
				c.Close()
			}
			if err == nil || errors.Is(err, fs.ErrPermission) && isBound(p) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// isBound reports whether somebody has a control socket that this user may not connect to:
// by the kernel's list, in which it has the name that it was made by (see listen).
func isBound(path string) bool {
	list, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(list)) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " "+path)
		pid, made := strings.CutPrefix(name, ".")
		if _, err := strconv.Atoi(pid); made && err == nil {
			return true
		}
	}
	return false
}
