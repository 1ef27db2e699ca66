// Package trust checks who can write a file: handoff as root does not use a configuration
// that another user can write.
package trust

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"handoff/internal/linux"
)

// MaxSize is the largest configuration file.
const MaxSize = 4 << 20

// Reader is who reads, and for whom.
type Reader struct {
	UID int // of handoff
	// User is who workers run as, if that is another user, and Group that one's primary
	// group: what only that user can write is told apart. 0: there is none.
	User, Group int
}

// Error says who else can write a file.
type Error struct {
	Path string
	Why  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("cannot use %s: %s, and handoff runs as root: it would apply its settings as root. chown root it and chmod go-w it, run handoff as that user, or use --trust-config", e.Path, e.Why)
}

// ReadFile reads a file. workers tells that the user of the workers can write it, and
// nobody else can but root and handoff's own user.
func (r Reader) ReadFile(path string) (text []byte, workers bool, err error) {
	// Whoever can write to the folder may put a pipe or a terminal there: nobody waits for it.
	f, err := linux.OpenInput(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if workers, err = r.judge(path, info); err != nil {
		return nil, false, err
	}
	text, err = linux.ReadAll(f, MaxSize)
	return text, workers, err
}

// Check is [Reader.ReadFile]'s judgement of a file that others read by its name, and of
// the folders that lead to it: who can write to these can exchange it meanwhile.
func (r Reader) Check(path string) (workers bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if workers, err = r.judge(path, info); err != nil || r.UID != 0 {
		return workers, err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false, err
		}
		if linux.Unmapped(int(info.Sys().(*syscall.Stat_t).Uid)) && dir != filepath.Dir(path) {
			info = root{info} // root's, of the machine that this container is on
		}
		if info.Mode()&fs.ModeSticky != 0 { // there, nobody can take another's file away
			info = sticky{info}
		}
		w, err := r.judge(dir, info)
		if err != nil {
			return false, err
		}
		workers = workers || w
		if dir == filepath.Dir(dir) {
			return workers, nil
		}
	}
}

// sticky is a folder in which others cannot replace files that are not theirs.
type sticky struct{ fs.FileInfo }

func (s sticky) Mode() fs.FileMode { return s.FileInfo.Mode() &^ 0o022 }

// root is a folder of the machine's root, in a user namespace.
type root struct{ fs.FileInfo }

func (r root) Sys() any {
	st := *r.FileInfo.Sys().(*syscall.Stat_t)
	st.Uid, st.Gid = 0, 0
	return &st
}

func (r Reader) judge(path string, info fs.FileInfo) (workers bool, err error) {
	st := info.Sys().(*syscall.Stat_t)
	owners := []int{int(st.Uid)}
	if link, err := os.Lstat(path); err == nil && link.Mode()&fs.ModeSymlink != 0 {
		owners = append(owners, int(link.Sys().(*syscall.Stat_t).Uid)) // who says which file it is
	}
	if r.UID != 0 {
		return false, r.planted(path, owners)
	}
	for _, uid := range owners {
		switch {
		case uid == 0:
		case uid == r.User:
			workers = true
		default:
			return false, &Error{path, "it belongs to " + name(uid)}
		}
	}
	mode := info.Mode().Perm()
	switch {
	case mode&0o002 != 0:
		return false, &Error{path, fmt.Sprintf("anyone can write to it (mode %#o)", mode)}
	case mode&0o020 == 0 || st.Gid == 0:
	case r.User != 0 && int(st.Gid) == r.Group:
		workers = true
	default:
		return false, &Error{path, fmt.Sprintf("its group %d can write to it (mode %#o)", st.Gid, mode)}
	}
	return workers, nil
}

// planted finds, for a user that is not root, a file of another user in a folder that
// everybody can write to.
func (r Reader) planted(path string, owners []int) error {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil || dir.Mode().Perm()&0o002 == 0 {
		return nil
	}
	for _, uid := range owners {
		if uid != 0 && uid != r.UID {
			return fmt.Errorf("cannot use %s: it belongs to %s, in a directory that anyone can write to. Start handoff in another folder, or use --trust-config", path, name(uid))
		}
	}
	return nil
}

// Replaceable finds another user than root and this one who can put another file in the
// place of one that this user executes, or has workers load: who owns it, or a folder that
// leads to it, and everybody, where everybody may write. Groups are the administrator's
// word: /usr/local is its group's on Debian.
func Replaceable(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, at := range []string{path, real} {
		for ; ; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			if err != nil {
				return err
			}
			uid := int(info.Sys().(*syscall.Stat_t).Uid)
			switch {
			case uid != 0 && uid != os.Geteuid() && !linux.Unmapped(uid):
				return fmt.Errorf("%s belongs to %s", at, name(uid))
			case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
				return fmt.Errorf("anyone can write to %s", at)
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil
}

func name(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return fmt.Sprintf("user %s (%d)", u.Username, uid)
	}
	return fmt.Sprintf("user %d", uid)
}
