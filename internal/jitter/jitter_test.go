package jitter

import (
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	const limit = 100 * time.Second
	for first := range 1000 {
		var quarters [4]int
		for id := first; id < first+8; id++ {
			d := Of(limit, id)
			if d < 0 || d >= limit {
				t.Fatalf("Of(%v, %d) = %v", limit, id, d)
			}
			if d != Of(limit, id) {
				t.Fatal("the same identity got two parts")
			}
			quarters[d*4/limit]++
		}
		for i, n := range quarters {
			if n == 0 {
				t.Errorf("of eight identities from %d on, none is in quarter %d: %v", first, i, quarters)
			}
		}
	}
	if Of(0, 7) != 0 {
		t.Error("a part of nothing")
	}
}
