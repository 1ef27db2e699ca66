package sdnotify

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sendTimeout is how long a supervisor that does not read is waited for.
const sendTimeout = time.Second

// Send sends a message, with descriptors that stay the caller's, to the socket that
// NOTIFY_SOCKET names: a path, or an abstract name that begins with @.
func Send(address, text string, fds ...int) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	return send(c, text, fds...)
}

func send(c *net.UnixConn, text string, fds ...int) error {
	c.SetWriteDeadline(time.Now().Add(sendTimeout))
	if len(fds) == 0 {
		_, err := c.Write([]byte(text))
		return err
	}
	raw, err := c.SyscallConn() // WriteMsgUnix refuses a connected one
	if err != nil {
		return err
	}
	rights := unix.UnixRights(fds...)
	werr := raw.Write(func(fd uintptr) bool {
		for {
			if err = unix.Sendmsg(int(fd), []byte(text), rights, nil, unix.MSG_NOSIGNAL); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	return errors.Join(werr, err)
}

// SendAndWait sends a message and waits until it has been looked at, since who is gone by
// then is not believed: the barrier of sd_notify_barrier(3).
func SendAndWait(address, text string, timeout time.Duration) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := send(c, text); err != nil {
		return err
	}
	err = ask(c, "BARRIER=1", timeout)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("nobody has looked at it within %v", timeout)
	}
	return err
}

// AskDraining asks handoff whether a signal that this process has got is its order to
// drain. Where nobody answers in time, the signal is what it is: yes.
func AskDraining(address string, timeout time.Duration) bool {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return true
	}
	defer c.Close()
	return !errors.Is(ask(c, "X_DRAINING=1", timeout), io.EOF)
}

// ask sends a message with a pipe, and reads a byte from it: io.EOF is its end without
// one.
func ask(c *net.UnixConn, text string, timeout time.Duration) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = send(c, text, int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	r.SetReadDeadline(time.Now().Add(timeout))
	_, err = r.Read(make([]byte, 1))
	return err
}
