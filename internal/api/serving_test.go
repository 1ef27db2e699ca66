package api

import "testing"

// What is said of a generation that serves is what it does.
func TestServing(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{Slots: 2, Ready: 2}, "keeps serving"},
		{Status{Slots: 2, Ready: 1}, "keeps serving in 1 of 2 slots"},
		{Status{Slots: 2}, "serves in no slot"},
		{Status{Slots: 1, Ready: 1, Addresses: []AddressStatus{{Address: "a"}, {Address: "b", Unserved: true}, {Address: "c", Unserved: true}}}, "keeps serving; nobody accepts on b, c"},
	} {
		if got := c.s.Serving(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
