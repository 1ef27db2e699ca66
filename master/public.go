package master

import (
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
	l, err := m.cfg.AdminListen(fd, func() {
		m.keep.Remove(fdstore.Admin)
		m.keep.Flush()
	})
	if err != nil {
		m.log.Error("Cannot serve --admin: "+err.Error(), "event", events.AdminFailed, "address", m.cfg.AdminAddr)
		m.keep.Remove(fdstore.Admin)
		return stop
	}
	m.clients.admin = l
	m.keep.StoreFile(fdstore.Admin, l)
	return m.cfg.Admin(l, Control{m.mail.post, m.mail.quit, &m.history.end.replaced})
}
