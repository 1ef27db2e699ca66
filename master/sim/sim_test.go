// Package sim runs the decisions of a master, in the order in which it records and
// carries them out (master/sequence, fleet, reload, recycle, snapshot), against a
// simulated kernel: processes, signals, listening sockets with accept queues, time. Its
// masters and keepers die between any two actions, and what follows is started from the
// record. Everything comes from one seed, in one goroutine.
//
// The keeper, the table of sockets and the loop's own glue are models here; what steers a
// group of sockets in the kernel has tests of its own (package handoff).
package sim

import (
	"flag"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed alone, and print its transcript")
	deedsFlag = flag.Int("deeds", 0, "with -seed: so many deeds")
)

const maxDeeds = 60

// attempt runs a seed and returns its broken invariant, "" if there is none.
func attempt(seed uint64, most int, trace *[]string) (s *sim, broken string) {
	s = newSim(seed, most)
	s.trace = trace
	defer func() {
		if e := recover(); e != nil {
			v, ok := e.(violation)
			if !ok {
				panic(e)
			}
			broken = string(v)
		}
	}()
	s.run()
	return s, ""
}

// report prints the shortest prefix of a failing seed.
func report(t *testing.T, seed uint64, broken string) {
	t.Helper()
	least := maxDeeds
	for n := range maxDeeds {
		if _, b := attempt(seed, n, nil); b != "" {
			least, broken = n, b
			break
		}
	}
	var lines []string
	attempt(seed, least, &lines)
	t.Errorf("%s\n\nseed %d, after %d deeds: %s\ngo test ./master/sim -run TestSeed -seed %d -deeds %d", strings.Join(lines, "\n"), seed, least, broken, seed, least)
}

// TestSeed runs one seed, and prints its transcript.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("without -seed")
	}
	most := *deedsFlag
	if most == 0 {
		most = maxDeeds
	}
	var lines []string
	_, broken := attempt(*seedFlag, most, &lines)
	t.Log("\n" + strings.Join(lines, "\n"))
	if broken != "" {
		t.Error(broken)
	}
}

// TestSimulation runs HANDOFF_SIM_HOURS simulated hours; else for a moment, always the
// same seeds.
func TestSimulation(t *testing.T) {
	hours, most := 10_000, 10*time.Second
	if testing.Short() {
		hours, most = 50, time.Second
	}
	first := uint64(1)
	if s := os.Getenv("HANDOFF_SIM_HOURS"); s != "" {
		hours, _ = strconv.Atoi(s)
		most = math.MaxInt64
		first = uint64(time.Now().UnixNano()) >> 10 // another night, other seeds
	}
	if s := os.Getenv("HANDOFF_SIM_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
	}
	var simulated time.Duration
	seeds, reloads, masters, stops := 0, 0, 0, 0
	began, cpu := time.Now(), cpuTime()
	for seed := first; simulated < time.Duration(hours)*time.Hour && time.Since(began) < most; seed++ {
		s, broken := attempt(seed, maxDeeds, nil)
		if broken != "" {
			t.Logf("found after %.1f s, %d services", time.Since(began).Seconds(), seeds)
			report(t, seed, broken)
			return
		}
		seeds++
		reloads += s.reloads
		masters += s.masters
		simulated += s.now.Sub(epoch)
		if s.over {
			stops++
		}
	}
	took, used := time.Since(began).Seconds(), (cpuTime() - cpu).Seconds()
	t.Logf("seeds from %d: %d services (%d of them ended), %.0f hours, %d reloads, %d masters in %.1f s: %.0f reloads and %.0f hours a second, %.0f and %.0f a second of CPU",
		first, seeds, stops, simulated.Hours(), reloads, masters, took, float64(reloads)/took, simulated.Hours()/took, float64(reloads)/used, simulated.Hours()/used)
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u) // never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
