package master

import (
	"strings"
	"testing"
)

func TestSteps(t *testing.T) {
	var order []string
	var s steps
	says := func(what string) func() { return func() { order = append(order, what) } }
	s.pause()
	s.do(says("held"))
	s.resume(says("first"))
	s.do(func() {
		order = append(order, "a begins")
		s.do(func() { order = append(order, "b begins"); s.do(says("c")); order = append(order, "b ends") })
		s.atRest = func() { order = append(order, "rest"); s.do(says("after")) }
		s.do(says("d"))
		order = append(order, "a ends")
	})
	s.do(says("e"))
	if got, want := strings.Join(order, ", "), "first, held, a begins, a ends, b begins, b ends, d, c, rest, after, e"; got != want {
		t.Errorf("order %s\nwant  %s", got, want)
	}
}

func TestPostAfterTheEnd(t *testing.T) {
	m := newMailbox()
	for range cap(m.events) {
		m.post(socketActivity{})
	}
	close(m.quit)
	m.post(socketActivity{}) // and returns
}
