// Package admin is the control API: HTTP and JSON over a unix socket that only
// its owner and root may use.
//
//	curl --unix-socket /run/handoff/web.sock http://handoff/v1/status
//
// The socket is made with mode 0600 in a folder of mode 0700; each connection's
// credentials (SO_PEERCRED) are checked besides.
package admin

import (
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

// Dir is where control sockets are: HANDOFF_RUNTIME_DIR, systemd's
// RUNTIME_DIRECTORY, XDG_RUNTIME_DIR/handoff, /run/handoff for root, else
// /tmp/handoff-UID.
func Dir() string {
	if d := os.Getenv("HANDOFF_RUNTIME_DIR"); d != "" {
		return d
	}
	if d := os.Getenv("RUNTIME_DIRECTORY"); d != "" {
		first, _, _ := strings.Cut(d, ":")
		return first
	}
	if os.Geteuid() == 0 {
		return "/run/handoff"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "handoff")
	}
	return "/tmp/handoff-" + strconv.Itoa(os.Geteuid())
}

// CheckName finds names that cannot be a file's.
func CheckName(name string) error {
	if name == "" || len(name) > 64 || name[0] == '.' || strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		return fmt.Errorf("invalid name %q: want up to 64 letters, digits, and - _ . (not first)", name)
	}
	return nil
}

// Listen makes the control socket of a name. Where another master of that name
// answers, the pid is added to the name. The caller closes it, which removes it.
func Listen(name string) (net.Listener, error) {
	dir := Dir()
	if err := makeDir(dir); err != nil {
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

// makeDir makes the folder of the control sockets, and looks whose it is.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot create the control socket: %w", err)
	}
	// Whoever can write to the folder could put a socket of their own there.
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot create the control socket: %w", err)
	}
	if st := info.Sys().(*syscall.Stat_t); !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("cannot create the control socket: %s is not a directory that only this user can write to", dir)
	}
	return nil
}

// CheckDir returns why no control socket can be made; nil: it can.
func CheckDir() error { return makeDir(Dir()) }

// listen binds under another name and renames, so that nobody can connect
// before the mode is right, and what a killed master has left is replaced.
func listen(path string) (*net.UnixListener, error) {
	tmp := path + "." + strconv.Itoa(os.Getpid())
	os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, err
	}
	return l, nil
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
		if uid, err := peer(c); err == nil && (uid == 0 || uid == g.uid) {
			return c, nil
		}
		c.Close()
	}
}

func peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, cerr); err != nil {
		return -1, err
	}
	return int(cred.Uid), nil
}

// Names lists the masters of this user that answer, by name.
func Names() []string {
	var names []string
	for _, p := range sockets("*") {
		if c, err := net.Dial("unix", p); err == nil {
			c.Close()
			names = append(names, strings.TrimSuffix(filepath.Base(p), ".sock"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sockets lists the control sockets of a name, or a pattern of names: in [Dir], and
// where units have theirs (RuntimeDirectory=handoff/NAME).
func sockets(name string) []string {
	paths, _ := filepath.Glob(filepath.Join(Dir(), name+".sock"))
	if os.Getenv("HANDOFF_RUNTIME_DIR") == "" {
		units, _ := filepath.Glob("/run/handoff/*/" + name + ".sock")
		paths = append(paths, units...)
	}
	return paths
}
