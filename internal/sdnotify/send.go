package sdnotify

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"handoff/internal/cmsg"
)

// sendTimeout is how long to wait for a supervisor that does not read.
const sendTimeout = time.Second

// Send sends a message, with descriptors, which the caller still owns, to the socket in
// NOTIFY_SOCKET: a path, or an abstract name that begins with @.
func Send(address, text string, fds ...int) error {
	return SendWithin(sendTimeout, address, text, fds...)
}

// SendWithin is Send to one that may take only so long: os.ErrDeadlineExceeded.
func SendWithin(timeout time.Duration, address, text string, fds ...int) error {
	c, err := cmsg.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	return send(c, timeout, text, fds...)
}

func send(c *cmsg.Conn, timeout time.Duration, text string, fds ...int) error {
	c.SetWriteDeadline(time.Now().Add(timeout))
	return c.Write([]byte(text), fds...)
}

// SendAndWait sends a message and waits until it was checked, since a sender that has
// exited by then is not accepted: the barrier of sd_notify_barrier(3).
func SendAndWait(address, text string, timeout time.Duration) error {
	c, err := cmsg.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := send(c, sendTimeout, text); err != nil {
		return err
	}
	err = ask(c, "BARRIER=1", timeout)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("not read within %v", timeout)
	}
	return err
}

// AskDraining asks handoff whether a signal that this process has received is its order
// to drain. Without an answer in time the result is true.
func AskDraining(address string, timeout time.Duration) bool {
	c, err := cmsg.Dial(address)
	if err != nil {
		return true
	}
	defer c.Close()
	return !errors.Is(ask(c, "X_DRAINING=1", timeout), io.EOF)
}

// ask sends a message with a pipe, and reads a byte from it: io.EOF if it is closed
// without one.
func ask(c *cmsg.Conn, text string, timeout time.Duration) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = send(c, sendTimeout, text, int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	r.SetReadDeadline(time.Now().Add(timeout))
	_, err = r.Read(make([]byte, 1))
	return err
}
