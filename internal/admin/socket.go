// Package admin is the control API: HTTP and JSON over a unix socket that only
// its owner and root may use.
//
//	curl --unix-socket /run/handoff/web.sock http://handoff/v1/status
//
// The socket is made with mode 0600 in a folder that only its user can write to; each
// connection's credentials (SO_PEERCRED) are checked besides, by both ends.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckName finds names that cannot be a file's.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '.' || strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		return fmt.Errorf("invalid name %q: want up to %d letters, digits, and - _ . (not first)", name, maxName)
	}
	return nil
}

// maxName is the most bytes of a name: with its folder it fits into a socket's address.
const maxName = 64

// Listen makes the control socket of a name in [Dir]. Where another master of that name
// answers (two that started at one instant: see [FreeName]), the pid is added to the name.
// The caller closes it, which removes it.
func Listen(name string) (net.Listener, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	for _, n := range []string{name, name + "-" + strconv.Itoa(os.Getpid())} {
		path := filepath.Join(dir, n+".sock")
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			continue
		}
		l, err := listen(path)
		if err != nil {
			return nil, fmt.Errorf("cannot create the control socket: %w", err)
		}
		return guard{l, os.Geteuid()}, nil
	}
	return nil, fmt.Errorf("cannot create the control socket: %s is in use", name)
}

// listen binds under another name and renames, so that what a killed master has left is
// replaced. The socket has its mode from the start.
func listen(path string) (*net.UnixListener, error) {
	tmp := path + "." + strconv.Itoa(os.Getpid())
	os.Remove(tmp)
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.Fchmod(int(fd), 0o600) }) // bind(2) takes it over
	}}
	open, err := config.Listen(context.Background(), "unix", tmp)
	if err != nil {
		return nil, err
	}
	l := open.(*net.UnixListener)
	l.SetUnlinkOnClose(false)
	if err = chmod(filepath.Dir(tmp), filepath.Base(tmp)); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, err
	}
	return l, nil
}

// chmod closes a socket to others, whatever the umask is: one in this user's folder, and no
// file that a link leads to which somebody has put in the folder's place.
func chmod(dir, name string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s is no longer a directory that only this user can write to", dir)
	}
	return unix.Fchmodat(fd, name, 0o600, 0)
}

// guard lets in who has the right to.
type guard struct {
	*net.UnixListener
	uid int
}

func (g guard) Accept() (net.Conn, error) {
	for {
		c, err := g.UnixListener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if cred, err := peer(c); err == nil && (cred.Uid == 0 || int(cred.Uid) == g.uid) {
			return c, nil
		}
		c.Close()
	}
}

func peer(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, cerr)
}

// Names lists the masters of this user that answer, by name.
func Names() []string {
	return namesOf(answering("*"))
}

func namesOf(all []controlSocket) (names []string) {
	for _, s := range all {
		names = append(names, s.name())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// answering are the sockets of a name, or a pattern of names, that answer.
func answering(name string) (all []controlSocket) {
	for _, s := range sockets(name) {
		if c, err := s.dial(context.Background()); err == nil {
			if cred, err := peer(c.(*net.UnixConn)); err == nil {
				s.uid = int(cred.Uid)
			}
			c.Close()
			all = append(all, s)
		}
	}
	return all
}

// controlSocket is one that a client has found.
type controlSocket struct {
	path     string
	owner    int  // of the folder that it was found in
	uid      int  // who listens there, if it has answered
	embedded bool // of a handoff that is part of another program, see Register
}

func (s controlSocket) name() string { return strings.TrimSuffix(filepath.Base(s.path), ".sock") }

// dial connects, if it is this user, root, or the owner of the folder who listens there.
func (s controlSocket) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, err
	}
	cred, err := peer(c.(*net.UnixConn))
	if err == nil {
		if uid := int(cred.Uid); uid != 0 && uid != os.Geteuid() && uid != s.owner {
			err = fmt.Errorf("%s is a socket of the user %d", s.path, uid)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// sockets lists the control sockets of a name, or a pattern of names, those of the better
// places first.
func sockets(name string) (all []controlSocket) {
	for _, dir := range where(os.Getenv, os.Geteuid()) {
		of := -1
		if info, err := os.Stat(dir); err == nil {
			of, _ = owner(info)
		}
		paths, _ := filepath.Glob(filepath.Join(dir, name+".sock"))
		for _, path := range paths {
			info, err := os.Lstat(path)
			s := controlSocket{path: path, owner: of, embedded: err == nil && info.Mode().Type() == os.ModeSymlink}
			if CheckName(s.name()) == nil { // in another user's folder it may be anything
				all = append(all, s)
			}
		}
	}
	return all
}
