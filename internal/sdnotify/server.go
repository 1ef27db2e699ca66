package sdnotify

import (
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Server reads what one worker says.
type Server struct {
	Conn    *net.UnixConn // of Listen; who closes it ends Serve
	Believe func(pid int) bool
	Limiter Limiter
	// News is called with what is news, each once.
	News func(Notice)
	// Draining answers a worker that asks whether it is to drain; told is called when
	// the worker has the answer. It may block: the worker waits.
	Draining func() (yes bool, told func())
}

// Serve reads until the socket is closed. Descriptors that somebody sends are closed here,
// and nowhere else: close(2) of a socket may take as long as its owner likes (SO_LINGER).
func (s *Server) Serve() {
	buf := make([]byte, 4096)
	oob := make([]byte, 1024)
	for {
		n, oobn, flags, _, err := s.Conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.hear(Notice{})
			continue
		}
		if err != nil {
			return
		}
		sender, fds := unpack(oob[:oobn])
		if flags&unix.MSG_TRUNC == 0 && s.Believe(sender) {
			s.heard(strings.TrimSuffix(string(buf[:n]), "\x00"), fds) // sd_notify(3) allows the zero
		}
		for _, fd := range fds { // FDSTORE and barriers: closing ends the sender's wait
			unix.Close(fd)
		}
	}
}

func (s *Server) heard(text string, fds []int) {
	if text == "X_DRAINING=1" && len(fds) == 1 && s.Limiter.MayAsk(time.Now()) {
		yes, told := s.Draining()
		if yes && unix.SetNonblock(fds[0], true) == nil {
			unix.Write(fds[0], []byte{1}) // to a pipe; who gives something else has no answer
		}
		told()
		return
	}
	s.hear(Parse(text, s.Limiter.State()))
}

func (s *Server) hear(n Notice) {
	news, again := s.Limiter.Hear(time.Now(), n)
	s.Conn.SetReadDeadline(again)
	if news != (Notice{}) {
		s.News(news)
	}
}

// unpack takes the sender's pid, which the kernel vouches for, and descriptors from a
// control message.
func unpack(oob []byte) (pid int, fds []int) {
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
