package sequence

import (
	"strings"
	"testing"
)

func TestSteps(t *testing.T) {
	var order []string
	var s Steps
	says := func(what string) func() { return func() { order = append(order, what) } }
	s.Pause()
	s.Do(says("held"))
	s.Resume(says("first"))
	s.Do(func() {
		order = append(order, "a begins")
		s.Do(func() { order = append(order, "b begins"); s.Do(says("c")); order = append(order, "b ends") })
		s.AtRest = func() { order = append(order, "rest"); s.Do(says("after")) }
		s.Do(says("d"))
		order = append(order, "a ends")
	})
	s.Do(says("e"))
	if got, want := strings.Join(order, ", "), "first, held, a begins, a ends, b begins, b ends, d, c, rest, after, e"; got != want {
		t.Errorf("order %s\nwant  %s", got, want)
	}
}
