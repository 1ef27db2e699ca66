// Package jitter spreads what would happen to all at once. It is pure: the part comes
// from an identity, so that a decision can be repeated.
package jitter

// Of returns a part of limit, from 0 up to and without limit, that belongs to id:
// evenly spread over consecutive identities (Fibonacci hashing, Knuth, TAOCP 6.4),
// in 256 steps.
func Of[N ~int | ~int64](limit N, id int) N {
	const golden = 2654435761 // 2³² divided by the golden ratio
	return limit * N(uint32(id)*golden>>24) / 256
}
