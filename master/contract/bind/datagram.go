package bind

// datagram answers a call about a UDP socket.
func (s *Session) datagram(e called) {
	e.call.Continue()
}
