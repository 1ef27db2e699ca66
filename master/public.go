package master

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
)

// serveAdmin serves the socket of the previous master (fd, which it owns; -1: none), or a
// new one. A failure is only logged, since the service is more important.
func (m *Master) serveAdmin(fd int) (stop func()) {
	stop = func() {}
	if m.cfg.Admin == nil {
		if fd >= 0 {
			unix.Close(fd)
			m.keep.Remove(fdstore.Admin)
		}
		return stop
	}
	l, err := m.adminListener(fd)
	if err != nil {
		m.log.Error("Cannot serve --admin: "+err.Error(), "event", events.AdminFailed, "address", m.cfg.AdminAddr)
		m.keep.Remove(fdstore.Admin)
		return stop
	}
	m.clients.admin = l
	m.keep.StoreFile(fdstore.Admin, l)
	return m.cfg.Admin(l, Control{m.mail.post, m.mail.quit, &m.history.end.replaced})
}

func (m *Master) adminListener(fd int) (*net.TCPListener, error) {
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), fdstore.Admin)
		l, err := net.FileListener(f)
		f.Close()
		want, werr := net.ResolveTCPAddr("tcp", m.cfg.AdminAddr)
		if tl, ok := l.(*net.TCPListener); err == nil && werr == nil && ok {
			// 0.0.0.0 listens as [::] if there is IPv6.
			is := tl.Addr().(*net.TCPAddr)
			if is.Port == want.Port && (is.IP.Equal(want.IP) || is.IP.IsUnspecified() && (len(want.IP) == 0 || want.IP.IsUnspecified())) {
				return tl, nil
			}
		}
		if l != nil {
			l.Close()
		}
		m.keep.Remove(fdstore.Admin)
		m.keep.Flush()
	}
	l, err := net.Listen("tcp", m.cfg.AdminAddr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
