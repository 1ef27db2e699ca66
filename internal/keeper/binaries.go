package keeper

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// binaries are what masters are started from, even if another binary is on disk, and what
// has become of the last upgrade:
//
//	first ──upgraded──► on trial ──a master of it lives long enough──► current
//	                      │  ▲
//	    maxDeaths in a row└──┘ the one before is current again, and this one is the one before
type binaries struct {
	current  *os.File  // of the last master that was ready; nil: none was yet
	previous *os.File  // the one before, while current is on trial; nil: it is not
	deaths   int       // of masters of current, in a row
	runsBy   time.Time // when a master on trial must have said that its loop runs; zero: it has, or does not promise to
	hung     bool      // it was killed because it did not

	// For the next master, which reports it:
	failed    string // why previous is current again; "": it is not
	left      bool   // the last master left for a candidate, which is not ready yet
	candidate string // how that candidate ended; "": unknown, or not yet
}

// maxDeaths is how many masters of a new binary may die on trial before the previous
// binary is used again.
const maxDeaths = 3

// ready records the image of a master that is ready. It owns the file.
func (b *binaries) ready(image *os.File) {
	b.failed, b.left, b.candidate = "", false, ""
	if b.current == nil || same(b.current, image) {
		b.current.Close() // nil is an error
		b.current = image
		return
	}
	b.previous.Close()
	b.previous, b.current, b.deaths = b.current, image, 0
}

// promise notes what a master that is ready has promised: to say until then that its loop
// runs.
func (b *binaries) promise(until time.Time) {
	if b.previous != nil {
		b.runsBy = until
	}
}

// died records the death of a master of the current binary, after a while. After too many
// in a row on trial the previous binary is the current one again. A master that somebody
// has killed says nothing about its binary.
func (b *binaries) died(status unix.WaitStatus, lived, trial time.Duration) (back bool) {
	hung := b.hung
	b.hung, b.runsBy = false, time.Time{}
	switch {
	case hung:
		b.failed = "the master of the new binary took over, and did nothing"
		b.current, b.previous, b.deaths = b.previous, b.current, 0
		return true
	case b.previous == nil || status.Signaled() && status.Signal() == unix.SIGKILL:
		return false
	case lived >= trial:
		b.previous.Close()
		b.previous = nil
		return false
	}
	if b.deaths++; b.deaths < maxDeaths {
		return false
	}
	b.failed = fmt.Sprintf("%d masters of the new binary died within %v of their start (%s)", b.deaths, trial, linux.Ended(status))
	b.current, b.previous, b.deaths = b.previous, b.current, 0
	return true
}

// ended records how a candidate has ended, if it is not known why.
func (b *binaries) ended(status unix.WaitStatus) {
	b.candidate = cmp.Or(b.candidate, linux.Ended(status))
}

// upgradeFailed is why a master that is started now, and not by an upgrade, is what has
// become of one; "": of none.
func (b *binaries) upgradeFailed() string {
	if b.left {
		return "the new binary did not take over: " + cmp.Or(b.candidate, "it ended before it was ready")
	}
	return b.failed
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}
