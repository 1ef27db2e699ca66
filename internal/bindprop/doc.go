// Package bindprop compares what programs see bare with what they see under handoff:
// random scripts of socket calls are performed by a program without a runtime (program/),
// once bare and once under a handoff, as its first generation and as a second one beside
// it. All that the calls return is compared, and who can connect.
//
//	Generate ──► Pair of scripts ──► Perform on a Side: bare ──────┐
//	                             └─► Perform on a Side: handoff ───┴─► Compare ──► Shrink
//
// What differs on purpose is a row of [Differences].
package bindprop
