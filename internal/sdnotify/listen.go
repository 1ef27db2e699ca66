package sdnotify

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Place is where sockets are made, for datagrams of one user alone: whoever could send to
// one could keep its reader busy, or hand it descriptors.
//
// The folders belong to this user, and nobody else may write there, so that what is in
// them is what was put there: DIR/notify, and where that cannot be, a folder in /tmp or
// in memory. A socket belongs to who may send. Only where there is no folder at all it is
// an abstract one, to which any local user may send; its name cannot be guessed, but
// read in /proc/net/unix.
type Place struct {
	Dir string // of the service's sockets, absolute; "": none
	UID int    // who sends

	others []string // folders instead of those in /tmp and in memory, for tests
}

// maxPath is how long the path of a socket may be (sun_path of unix(7)).
const maxPath = 107

// Listen returns a socket and its address for NOTIFY_SOCKET. The kernel attaches the
// sender's credentials to what comes. The caller closes it by [Close].
func (p Place) Listen() (*cmsg.Conn, string, error) {
	var b [8]byte
	rand.Read(b[:]) // never fails
	name := hex.EncodeToString(b[:])
	var errs []error
	for _, dir := range p.folders() {
		c, path, err := p.listen(dir, name)
		if err == nil {
			return c, path, nil
		}
		errs = append(errs, err)
	}
	address := "@handoff/notify/" + name + rand.Text()
	c, err := cmsg.Listen(address)
	if err != nil {
		return nil, "", fmt.Errorf("cannot open a notify socket: %w", errors.Join(append(errs, err)...))
	}
	return c, address, nil
}

// Abstract reports whether any local user may send to an address.
func Abstract(address string) bool { return strings.HasPrefix(address, "@") }

// Close closes a socket of [Place.Listen], and removes what stands for it.
func Close(c *cmsg.Conn) error {
	if path := Address(c); filepath.IsAbs(path) {
		os.Remove(path)
	}
	return c.Close()
}

// Address is where a socket is reached; "" for nil.
func Address(c *cmsg.Conn) (address string) {
	if c == nil {
		return ""
	}
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			sa, err := unix.Getsockname(int(fd))
			if u, ok := sa.(*unix.SockaddrUnix); err == nil && ok {
				address = u.Name
			}
		})
	}
	return address
}

// folders are where the sockets may be, the best first.
func (p Place) folders() (dirs []string) {
	if filepath.IsAbs(p.Dir) {
		dirs = append(dirs, p.Dir)
	}
	if p.others != nil {
		return append(dirs, p.others...)
	}
	own := "handoff-" + strconv.Itoa(os.Geteuid())
	for _, dir := range []string{os.TempDir(), "/dev/shm"} {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, filepath.Join(dir, own))
		}
	}
	return dirs
}

func (p Place) listen(dir, name string) (*cmsg.Conn, string, error) {
	path := filepath.Join(dir, "notify", name)
	if len(path) > maxPath {
		return nil, "", fmt.Errorf("%s: the path of a socket is limited to %d bytes", path, maxPath)
	}
	if err := p.prepare(dir); err != nil {
		return nil, "", err
	}
	c, err := cmsg.Listen(path) // mode 0600
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	if err = p.give(filepath.Dir(path), name); err != nil {
		Close(c)
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return c, path, nil
}

// give has a socket belong to who sends, whatever the umask is: in the folder that is this
// user's, and not in one that somebody has put in its place.
func (p Place) give(dir, name string) error {
	folder, err := openOwn(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err = unix.Fchmodat(int(folder.Fd()), name, 0o600, 0); err == nil && p.UID != os.Geteuid() {
		err = unix.Fchownat(int(folder.Fd()), name, p.UID, -1, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

// openOwn opens a folder, if it is this user's.
func openOwn(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	folder := os.NewFile(uintptr(fd), path)
	if info, err := folder.Stat(); err != nil || !own(info) {
		folder.Close()
		return nil, errors.Join(err, errors.New("not a directory that only this user can write to"))
	}
	return folder, nil
}

// prepare makes dir, and the folder in it. As root others may pass through them, since
// workers may be of another user; they cannot list them.
func (p Place) prepare(dir string) error {
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711
	}
	if err := os.MkdirAll(filepath.Dir(dir), mode); err != nil {
		return err
	}
	for _, d := range []string{dir, filepath.Join(dir, "notify")} {
		err := os.Mkdir(d, mode)
		if err == nil {
			err = os.Chmod(d, mode) // whatever the umask is
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		info, err := os.Lstat(d) // before anything is made in it
		if err != nil {
			return err
		}
		if !own(info) {
			return fmt.Errorf("%s is not a directory that only this user can write to", d)
		}
	}
	if p.UID == os.Geteuid() {
		return nil
	}
	for d := filepath.Join(dir, "notify"); ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s is not accessible to the workers' user", d)
		}
		if d == "/" {
			return nil
		}
	}
}

// own tells whether something is a folder of this user, where nobody else can write.
func own(info os.FileInfo) bool {
	st := info.Sys().(*syscall.Stat_t)
	return info.IsDir() && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}

// Sweep removes sockets that nobody has any more, of processes that were killed. It looks
// only into folders of this user's own, and stays in them: another user may have one in a
// place like /tmp, and may put a link there while it is looked at.
func (p Place) Sweep() {
	for _, dir := range p.folders() {
		if folder, err := openOwn(filepath.Join(dir, "notify")); err == nil {
			sweep(folder)
			folder.Close()
		}
	}
}

func sweep(folder *os.File) {
	names, _ := folder.Readdirnames(-1)
	at := int(folder.Fd())
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || time.Since(time.Unix(st.Mtim.Unix())) < newSocket {
			continue // one that is just being bound refuses, too
		}
		c, err := cmsg.Dial("/proc/self/fd/" + strconv.Itoa(at) + "/" + name)
		if err == nil {
			c.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			unix.Unlinkat(at, name, 0)
		}
	}
}

const newSocket = time.Minute
