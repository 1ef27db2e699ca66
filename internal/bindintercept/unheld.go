package bindintercept

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Names are the names of files that a service holds, or is about to: who calls unlink(2) or
// rename(2) for another goes on at once. Any goroutine may ask.
type Names struct {
	set     atomic.Pointer[map[string]struct{}]
	several atomic.Int64 // until when workers start together, in nanoseconds
}

// Several says until when several workers start, and may bind the same paths. Till then more
// unlinks are reported, see lookUnheld.
func (n *Names) Several(until time.Time) { n.several.Store(until.UnixNano()) }

// Set replaces them; abstract ones do not count.
func (n *Names) Set(names []string) {
	set := make(map[string]struct{}, len(names))
	for _, name := range names {
		set[name] = struct{}{}
	}
	n.set.Store(&set)
}

func (n *Names) has(name string) bool {
	if n == nil {
		return false
	}
	set := n.set.Load()
	if set == nil {
		return false
	}
	_, ok := (*set)[name]
	return ok
}

// An unlink that goes on is executed at any later time, when another worker may have bound a
// socket at that path, as servers do that remove a stale file before they bind: it would be
// removed under it. So while several workers start, one that would remove the file of a
// socket is reported, and executed here ([Call.Remove]), and one that finds nothing is
// answered so. It costs some 30 µs for each unlink.

func (n *Names) areSeveral() bool { return n != nil && time.Now().UnixNano() < n.several.Load() }

// lookUnheld reads what an unlink of a name is about that is none of the service's; ok reports
// whether it is of a socket.
func (c *Call) lookUnheld(at int, text string) (ok bool, err error) {
	user, err := linux.FileUser(c.PID)
	if err != nil || os.Geteuid() != 0 && user.UID != os.Geteuid() { // Remove could not be that one
		return false, nil
	}
	spot, folder, err := c.resolve(at, text)
	if err != nil {
		return false, nil
	}
	c.keepFolder(folder)
	c.Spot, c.at, c.text = spot, at, text
	if spot.Free {
		c.gone = c.inFolder(func(folder int) error {
			var st unix.Stat_t
			var fs unix.Statfs_t
			if err := unix.Fstatfs(folder, &fs); err != nil || fs.Flags&unix.ST_RDONLY != 0 {
				return nil
			}
			return unix.Fstatat(folder, spot.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
		}) == unix.ENOENT
	}
	return spot.File != File{}, nil
}

// inFolder calls f with the folder of the path, opened with the rights of the thread that called.
func (c *Call) inFolder(f func(folder int) error) error {
	way, _ := splitPath(c.text)
	from, walk, err := c.startOf(c.at, way)
	if err != nil {
		return unix.EACCES
	}
	defer unix.Close(from)
	return c.as(func() error {
		folder, err := walk()
		if err != nil {
			return errors.Join(err, unix.EACCES)
		}
		defer unix.Close(folder)
		return f(folder)
	})
}

// Remove executes an unlink that is Unheld, with the rights of the thread that called, and
// answers it; then is called before that, in a goroutine.
func (c *Call) Remove(then func()) {
	c.answerWith(func() error {
		defer then()
		return c.inFolder(func(folder int) error { return unix.Unlinkat(folder, c.Spot.Name, 0) })
	})
}
