package sdnotify

import (
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Server reads the notices of one worker.
type Server struct {
	Conn    *cmsg.Conn // from Listen; closing it ends Serve
	Believe func(pid int) bool
	Limiter Limiter
	// News is called with each notice that is news.
	News func(Notice)
	// Draining answers a worker that asks whether it must drain; delivered is called when
	// the worker has the answer. It may block: the worker waits.
	Draining func() (yes bool, delivered func())
}

// Serve reads until the socket is closed. It closes received descriptors asynchronously,
// since close(2) may block for as long as the sender likes; while too many of these wait,
// nothing is read.
func (s *Server) Serve() {
	buf := make([]byte, 4096)
	closer := cmsg.Closer{Foreign: true, Waits: true}
	defer closer.Stop()
	for {
		m, err := s.Conn.Receive(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.hear(Notice{})
			continue
		}
		if err != nil {
			return
		}
		if !m.Truncated && m.Sender != nil && s.Believe(int(m.Sender.Pid)) {
			s.heard(strings.TrimSuffix(string(buf[:m.N]), "\x00"), m.FDs) // sd_notify(3) allows the zero
		}
		closer.CloseAll(m.FDs) // FDSTORE and barriers: closing ends the sender's wait
	}
}

func (s *Server) heard(text string, fds []int) {
	if text == "X_DRAINING=1" && len(fds) == 1 && s.Limiter.MayAsk(time.Now()) {
		yes, delivered := s.Draining()
		if yes && isPipe(fds[0]) && unix.SetNonblock(fds[0], true) == nil {
			unix.Write(fds[0], []byte{1}) // for other descriptors there is no answer
		}
		delivered()
		return
	}
	s.hear(Parse(text, s.Limiter.State()))
}

// isPipe reports whether a descriptor is a pipe: of all that a worker may have opened,
// only that is written to, with the rights of handoff.
func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func (s *Server) hear(n Notice) {
	news, again := s.Limiter.Hear(time.Now(), n)
	s.Conn.SetReadDeadline(again)
	if news != (Notice{}) {
		s.News(news)
	}
}
