package sdnotify

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Listen returns a socket and its address for NOTIFY_SOCKET: an abstract one with a name
// that cannot be guessed. The kernel attaches the sender's credentials to what comes. The
// caller closes it.
func Listen() (*net.UnixConn, string, error) {
	var b [16]byte
	rand.Read(b[:]) // never fails
	name := "@handoff/notify/" + hex.EncodeToString(b[:])
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, "", fmt.Errorf("cannot open a notify socket: %w", err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		if err == nil {
			err = cerr
		}
	}
	if err != nil {
		c.Close()
		return nil, "", fmt.Errorf("cannot open a notify socket: %w", err)
	}
	return c, name, nil
}
