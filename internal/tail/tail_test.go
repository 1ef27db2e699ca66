package tail

import (
	"slices"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	r := New(16)
	for _, s := range []string{"one\n", "two\n\n", "three\n", "four", "\n", strings.Repeat("x", 3)} {
		r.Write([]byte(s))
	}
	if got := r.Lines(3); !slices.Equal(got, []string{"three", "four", "xxx"}) {
		t.Errorf("%q", got)
	}
	r.Write([]byte(strings.Repeat("y", 100)))
	if got := r.Lines(9); !slices.Equal(got, []string{strings.Repeat("y", 16)}) {
		t.Errorf("%q", got)
	}
}
