package snapshot

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock converts times between this process and the record. In a process they count by the
// monotonic clock, which JSON does not keep. By the wall clock alone, one that is set (NTP,
// a machine that was suspended) would have the next master end drains at once, or let them
// go on for hours. So a record's times are of a clock that is never set: the monotonic one,
// counted from an epoch that the service's first master has taken from the wall clock. An
// older binary reads them as the wall clock's, as it always did.
type Clock struct {
	epoch     time.Time // when the monotonic clock was zero
	now       time.Time // of this process, at
	monotonic time.Duration
}

// NewClock returns the clock of a master that goes on with a record; of the first one, and
// of a record without an epoch, that has begun now.
func NewClock(r Record) Clock {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // never fails
	c := Clock{now: time.Now(), monotonic: time.Duration(ts.Nano())}
	if c.epoch = c.now.Round(0).Add(-c.monotonic); r.Epoch != 0 {
		c.epoch = time.Unix(0, r.Epoch)
	}
	return c
}

// Write converts the times of a record that is to be written.
func (c Clock) Write(r *Record) {
	r.Epoch = c.epoch.UnixNano()
	for _, t := range r.times() {
		if !t.IsZero() {
			*t = c.epoch.Add(c.monotonic + t.Sub(c.now))
		}
	}
}

// Read converts the times of a record that was read.
func (c Clock) Read(r *Record) {
	for _, t := range r.times() {
		if !t.IsZero() {
			*t = c.now.Add(t.Sub(c.epoch) - c.monotonic)
		}
	}
}

// times are all that a record has.
func (r *Record) times() []*time.Time {
	all := []*time.Time{&r.Began, &r.Fleet.Began}
	for i := range r.Fleet.Workers {
		w := &r.Fleet.Workers[i]
		all = append(all, &w.Started, &w.ReadyAt, &w.PingBy, &w.Turn, &w.Deadline, &w.Latest, &w.Late)
	}
	for i := range r.Fleet.SlotStates {
		all = append(all, &r.Fleet.SlotStates[i].NotBefore)
	}
	for i := range r.Workers {
		all = append(all, &r.Workers[i].Began)
	}
	for i := range r.Addresses {
		all = append(all, &r.Addresses[i].Unheld, &r.Addresses[i].Waits)
	}
	for i := range r.Descendants.Trees {
		all = append(all, &r.Descendants.Trees[i].At)
	}
	if r.Reloaded != nil {
		all = append(all, &r.Reloaded.Began)
	}
	return all
}
