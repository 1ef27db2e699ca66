package takeover

import (
	"time"

	"golang.org/x/sys/unix"
)

const tcpEstablished = 1 // TCP_ESTABLISHED

// glance is what the kernel tells of a connection, without a byte of it being read.
type glance struct {
	open       bool // nobody has closed or shut it down
	unread     int  // bytes that the program has not read
	unanswered bool // bytes of an answer that are not sent yet; the last ones are acknowledged with the next request, or after 40 ms
	sent       uint64
	received   uint64
	sentFor    time.Duration // since it was last sent to
	readFor    time.Duration // since it was last received from
}

// look asks for it. The socket's lock is taken for that.
func look(fd int) (g glance, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return g, err
	}
	if g.unread, err = unix.IoctlGetInt(fd, unix.SIOCINQ); err != nil {
		return g, err
	}
	g.open = info.State == tcpEstablished
	g.unanswered = info.Notsent_bytes > 0
	g.sent, g.received = info.Bytes_sent, info.Bytes_received
	g.sentFor = time.Duration(info.Last_data_sent) * time.Millisecond
	g.readFor = time.Duration(info.Last_data_recv) * time.Millisecond
	return g, nil
}

// idle reports whether what was last is an answer, or nothing was yet. The kernel counts
// in ticks of 1 to 10 ms: of a request in the tick of the answer before it, it cannot tell.
func (g glance) idle() bool {
	return g.open && g.unread == 0 && !g.unanswered && g.sentFor <= g.readFor && (g.sent > 0 || g.received == 0)
}

// certain reports whether that is beyond doubt.
func (g glance) certain() bool { return g.idle() && (g.sentFor < g.readFor || g.received == 0) }
