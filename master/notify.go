package master

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/master/fleet"
)

// A worker may speak systemd's notify protocol (sd_notify(3)) on a socket of its
// own, which never leads anywhere but here. The sender's credentials are
// checked: only the worker's own processes are believed. A sender that is gone
// before it could be looked at is not (systemd-notify waits for its barrier, so
// it is there).

// openNotify returns a socket and its address for NOTIFY_SOCKET: an abstract one
// with a name that cannot be guessed.
func openNotify() (*net.UnixConn, string, error) {
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

// notice is what of a worker's notifications changes anything here.
type notice struct {
	ready, stopping bool
	status          string
}

// attendNotify reads a worker's notify socket until it is closed. It posts each
// notice once, so that a worker that floods it keeps nobody but this goroutine
// busy.
func attendNotify(id fleet.ID, pid int, c *net.UnixConn, post func(event)) {
	buf := make([]byte, 4096)
	oob := make([]byte, 1024)
	var said notice
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		sender, fds := control(oob[:oobn])
		closeAll(fds) // FDSTORE and barriers: there is no store for workers; closing ends the sender's wait
		if !descends(sender, pid) {
			continue
		}
		heard := parseNotice(string(buf[:n]))
		news := notice{ready: heard.ready && !said.ready, stopping: heard.stopping && !said.stopping}
		if heard.status != "" && heard.status != said.status {
			news.status, said.status = heard.status, heard.status
		}
		said.ready, said.stopping = said.ready || heard.ready, said.stopping || heard.stopping
		if news != (notice{}) {
			post(notified{id, news})
		}
	}
}

// parseNotice reads assignments, one a line. Those that are not for a supervisor
// of this kind (MAINPID, FDNAME, WATCHDOG…) change nothing.
func parseNotice(text string) notice {
	var n notice
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			n.ready = n.ready || value == "1"
		case "STOPPING":
			n.stopping = n.stopping || value == "1"
		case "STATUS":
			n.status = strings.ToValidUTF8(value[:min(len(value), 200)], "?")
		}
	}
	return n
}

// control unpacks the sender's pid, which the kernel vouches for, and
// descriptors from a control message.
func control(oob []byte) (pid int, fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		}
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return pid, fds
}

// descends tells whether a process is ancestor, or comes from it, or is in its
// process group (what outlives its parent still is).
func descends(pid, ancestor int) bool {
	if pid <= 0 {
		return false
	}
	if pgid, err := unix.Getpgid(pid); err == nil && pgid == ancestor {
		return true
	}
	for range 64 {
		if pid == ancestor {
			return true
		}
		if pid <= 1 {
			return false
		}
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		// PID (name) S PPID …; the name may have anything in it.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(f[1]); err != nil {
			return false
		}
	}
	return false
}
