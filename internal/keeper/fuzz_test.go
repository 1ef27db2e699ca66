package keeper

import (
	"strings"
	"testing"

	"handoff/internal/cmsg"
)

func FuzzWaits(f *testing.F) {
	for _, s := range []string{"", "stop=1s,backoff-max=100ms", "stop=0s", "stop=-1s", "x=1s", ",,", "kill=999999h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWaits(text)
		if err != nil {
			if w != (Waits{}) {
				t.Errorf("%q: %+v, %v", text, w, err)
			}
			return
		}
		w = w.orDefaults()
		if min(w.Stop, w.Candidate, w.BackoffFirst, w.BackoffMax, w.Stable, w.Give, w.End, w.Kill) <= 0 {
			t.Errorf("%q: %+v", text, w)
		}
	})
}

// The names of what a service manager gives back: one of each is kept, under its own name.
func FuzzKept(f *testing.F) {
	f.Add("w1-pid.1:w1-pid.2:state.7")
	f.Add("a.9223372036854775807:a.x:.:a.-1::a")
	f.Fuzz(func(t *testing.T, names string) {
		var all []cmsg.Named
		for name := range strings.SplitSeq(names, ":") {
			all = append(all, cmsg.Named{Name: name, FD: -1})
		}
		m := &manager{numbers: map[string]int{}}
		kept := m.split(all)
		seen := map[string]bool{}
		for _, k := range kept {
			if seen[k.Name] || strings.ContainsAny(k.Name, ".:") {
				t.Errorf("%q: %+v", names, kept)
			}
			seen[k.Name] = true
		}
		for _, n := range all {
			if name, _, _ := strings.Cut(n.Name, "."); !seen[name] {
				t.Errorf("%q: %q is lost", names, name)
			}
		}
		for name, n := range m.numbers { // the next one that is stored has a higher number
			if n+1 < n {
				t.Errorf("%q: %s has %d", names, name, n)
			}
		}
	})
}
