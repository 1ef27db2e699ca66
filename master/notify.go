package master

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"handoff/master/fleet"
)

// A worker may speak systemd's notify protocol (sd_notify(3)) on a socket of its
// own, which never leads anywhere but here. One word is handoff's own: with
// X_DRAINING=1 and the write end of a pipe it asks whether the signal that it has
// got is the order to drain; a byte is the yes. The sender's credentials are
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
	alive           bool          // WATCHDOG=1
	hung            bool          // WATCHDOG=trigger
	extend          time.Duration // EXTEND_TIMEOUT_USEC
	requests        int           // X_REQUESTS, served since its start
	stores          bool          // FDSTORE=1: there is no store for workers
	state           *state        // if it has changed
}

// state is what a worker says about itself, for people.
type state struct {
	status    string // STATUS
	reloading bool   // RELOADING=1, until READY=1
}

// hearing is what has been heard of a worker so far. A worker may say what it
// likes as often as it likes: what changes nothing, or comes too often, is not
// posted, so that it keeps nobody busy but the goroutine that reads it.
type hearing struct {
	ready, stopping, stores, hung bool
	aliveEvery                    time.Duration // between two pings that are posted; 0: none are
	aliveAt                       time.Time
	extendedAt                    time.Time     // when more time was asked for last
	extend                        time.Duration // is to be posted
	asked                         int           // how often it has asked whether it is to drain, since askedAt
	askedAt                       time.Time
	requests                      int
	requestsAt                    time.Time
	said, posted                  state
	postedAt                      time.Time
}

// stateEvery is how often a worker's state is posted, at most. The last one
// always is.
const stateEvery = 100 * time.Millisecond

// hear returns what is news in n, and when to look again whether its state is,
// if nothing else comes (zero: need not).
func (h *hearing) hear(now time.Time, n notice) (news notice, again time.Time) {
	news.ready = n.ready && !h.ready
	news.stopping = n.stopping && !h.stopping
	news.stores = n.stores && !h.stores
	h.ready, h.stopping, h.stores = h.ready || n.ready, h.stopping || n.stopping, h.stores || n.stores
	news.hung = n.hung && !h.hung
	h.hung = h.hung || n.hung
	if n.alive && h.aliveEvery > 0 && now.Sub(h.aliveAt) >= h.aliveEvery {
		news.alive, h.aliveAt = true, now
	}
	if n.extend > 0 && now.Sub(h.extendedAt) >= extendEvery {
		h.extendedAt, h.extend = now, 0
		news.extend = n.extend
	} else if n.extend > 0 {
		h.extend = n.extend // the last one is posted, too
	}
	if h.extend > 0 {
		if again = h.extendedAt.Add(extendEvery); !now.Before(again) {
			news.extend, h.extendedAt, h.extend, again = h.extend, now, 0, time.Time{}
		}
	}
	if n.requests > h.requests && now.Sub(h.requestsAt) >= stateEvery { // a count only grows
		news.requests, h.requests, h.requestsAt = n.requests, n.requests, now
	}
	if n.state != nil {
		h.said = *n.state
	}
	if h.said != h.posted {
		if at := h.postedAt.Add(stateEvery); now.Before(at) {
			again = earlier(again, at)
		} else {
			h.posted, h.postedAt = h.said, now
			news.state = &h.posted
		}
	}
	return news, again
}

// extendEvery is how often asking for more time is posted, at most. The last one
// always is: it counts from then on.
const extendEvery = 100 * time.Millisecond

// asksMost is how often in a second a worker is answered whether it is to drain. It
// asks for each signal that it gets; no answer means no.
const asksMost = 100

// mayAsk counts a question.
func (h *hearing) mayAsk(now time.Time) bool {
	if now.Sub(h.askedAt) >= time.Second {
		h.asked, h.askedAt = 0, now
	}
	h.asked++
	return h.asked <= asksMost
}

// attendNotify reads a worker's notify socket until it is closed. It posts each
// notice once, so that a worker that floods it keeps nobody but this goroutine
// busy.
func attendNotify(id fleet.ID, pid int, watchdog time.Duration, c *net.UnixConn, post func(event)) {
	buf := make([]byte, 4096)
	oob := make([]byte, 1024)
	h := hearing{aliveEvery: watchdog / 8}
	hear := func(n notice) {
		news, again := h.hear(time.Now(), n)
		c.SetReadDeadline(again)
		if news != (notice{}) {
			if news.state != nil {
				news.state = &state{news.state.status, news.state.reloading}
			}
			post(notified{id, news})
		}
	}
	for {
		n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			hear(notice{})
			continue
		}
		if err != nil {
			return
		}
		sender, fds := control(oob[:oobn])
		if flags&unix.MSG_TRUNC != 0 || !descends(sender, pid) {
			closeAll(fds)
			continue
		}
		text := strings.TrimSuffix(string(buf[:n]), "\x00") // which sd_notify(3) allows
		if text == "X_DRAINING=1" && len(fds) == 1 && h.mayAsk(time.Now()) {
			post(drainAsked{id, fds[0]})
			continue
		}
		closeAll(fds) // FDSTORE and barriers: there is no store for workers; closing ends the sender's wait
		hear(parseNotice(text, h.said))
	}
}

// parseNotice reads assignments, one a line. Those that are not for a supervisor
// of this kind (MAINPID, FDNAME, ERRNO…) change nothing. before is the worker's
// state until now.
func parseNotice(text string, before state) notice {
	var n notice
	after := before
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			n.ready = n.ready || value == "1"
			after.reloading = after.reloading && value != "1"
		case "RELOADING":
			after.reloading = after.reloading || value == "1"
		case "WATCHDOG":
			n.alive = n.alive || value == "1"
			n.hung = n.hung || value == "trigger"
		case "EXTEND_TIMEOUT_USEC":
			if usec, err := strconv.ParseUint(value, 10, 63); err == nil {
				n.extend = time.Duration(min(usec, uint64(time.Hour/time.Microsecond))) * time.Microsecond
			}
		case "X_REQUESTS":
			if requests, err := strconv.ParseInt(value, 10, 63); err == nil && requests > 0 {
				n.requests = int(requests)
			}
		case "FDSTORE":
			n.stores = n.stores || value == "1"
		case "STOPPING":
			n.stopping = n.stopping || value == "1"
		case "STATUS":
			after.status = clean(value)
		}
	}
	if after != before {
		n.state = &after
	}
	return n
}

// statusMost is how much of a worker's status is kept, in bytes.
const statusMost = 200

// clean makes a worker's words fit for one line of a log or a table.
func clean(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), statusMost)], "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
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
