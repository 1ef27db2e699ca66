package bindintercept

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

var errPath = errors.New("not the address of a unix socket")

// lookPath reads what a call about a unix socket needs. ok is false for one that the kernel
// answers alone: a bad address, or one that is to be chosen (autobind).
func (c *Call) lookPath(socket int, addr, size uint64) (ok bool, err error) {
	if c.Listen {
		sa, err := unix.Getsockname(socket)
		if un, is := sa.(*unix.SockaddrUnix); err == nil && is {
			c.Path = un.Name
			if abstract, is := strings.CutPrefix(un.Name, "@"); is { // as package unix writes it
				c.Path = "\x00" + abstract
			}
		}
		return c.Path != "", nil
	}
	if size <= 2 || size > unix.SizeofSockaddrUnix {
		return false, nil
	}
	b := make([]byte, size)
	n, err := readMemory(c.PID, addr, b)
	if err != nil {
		return false, nil
	}
	c.Path, err = parsePath(b[:n])
	return err == nil, nil
}

// parsePath reads a struct sockaddr_un.
func parsePath(b []byte) (string, error) {
	if len(b) < 3 || b[0] != unix.AF_UNIX || b[1] != 0 {
		return "", errPath
	}
	if b[2] == 0 { // abstract: zero bytes are part of the name
		return string(b[2:]), nil
	}
	path, _, _ := strings.Cut(string(b[2:]), "\x00")
	return path, nil
}
