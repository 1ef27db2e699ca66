package sdnotify

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"handoff/internal/cmsg"
)

// Listen returns a socket and its address for NOTIFY_SOCKET: an abstract one with a name
// that cannot be guessed. The kernel attaches the sender's credentials to what comes. The
// caller closes it.
func Listen() (*cmsg.Conn, string, error) {
	var b [16]byte
	rand.Read(b[:]) // never fails
	name := "@handoff/notify/" + hex.EncodeToString(b[:])
	c, err := cmsg.Listen(name)
	if err != nil {
		return nil, "", fmt.Errorf("cannot open a notify socket: %w", err)
	}
	return c, name, nil
}
