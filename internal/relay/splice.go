package relay

import (
	"io"
	"net"
)

// Splice passes the bytes of two connections to each other until both have ended, and closes
// them. An end of one direction is passed on as one, a reset as one.
func Splice(a, b net.Conn) {
	ended := make(chan struct{})
	go func() { // ends when both connections are closed, at the latest
		defer close(ended)
		oneWay(a, b)
	}()
	oneWay(b, a)
	<-ended
	a.Close()
	b.Close()
}

func oneWay(from, to net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(from)
		reset(to)
		return
	}
	closeWrite(to)
}
