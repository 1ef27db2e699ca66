package bindprop

import "slices"

// Shrink returns a pair with as few steps as it finds for which fails is still true.
func Shrink(p Pair, fails func(Pair) bool) Pair {
	if same := (Pair{p.First, p.First}); !slices.Equal(p.First, p.Second) && fails(same) {
		p = same
	}
	if slices.Equal(p.First, p.Second) {
		s := shrink(p.First, func(s Script) bool { return fails(Pair{s, s}) })
		return Pair{s, s}
	}
	for {
		n := p.Steps()
		p.First = shrink(p.First, func(s Script) bool { return fails(Pair{s, p.Second}) })
		p.Second = shrink(p.Second, func(s Script) bool { return fails(Pair{p.First, s}) })
		if p.Steps() == n {
			return p
		}
	}
}

func shrink(s Script, fails func(Script) bool) Script {
	for size := (len(s) + 1) / 2; size > 0; {
		cut := false
		for at := 0; at < len(s); {
			less := slices.Concat(s[:at], s[min(at+size, len(s)):])
			if fails(less) {
				s, cut = less, true
			} else {
				at += size
			}
		}
		if size == 1 && !cut {
			break
		}
		size = max(1, size/2)
	}
	return s
}
