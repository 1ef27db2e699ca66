package master

import "testing"

func TestPostAfterTheEnd(t *testing.T) {
	m := newMailbox()
	for range cap(m.events) {
		m.post(socketActivity{})
	}
	close(m.quit)
	m.post(socketActivity{}) // and returns
}
