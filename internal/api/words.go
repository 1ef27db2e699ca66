package api

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Stalled counts the workers that accept nothing, while others do.
func (s Status) Stalled() (n int) {
	for _, w := range s.Workers {
		if w.Stalled {
			n++
		}
	}
	return n
}

// RestartsText is how often a slot's worker was replaced, and why: "3 (2 recycled: max
// memory, 1 crashed)". crashes is what a master says that has no reasons.
func RestartsText(reasons map[string]int, crashes int) string {
	if len(reasons) == 0 {
		return strconv.Itoa(crashes)
	}
	all := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		if n := reasons[b] - reasons[a]; n != 0 {
			return n
		}
		return map[bool]int{true: -1, false: 1}[a < b]
	})
	total, text := 0, ""
	for i, reason := range all {
		if total += reasons[reason]; i > 0 {
			text += ", "
		}
		text += strconv.Itoa(reasons[reason]) + " " + reason
	}
	return fmt.Sprintf("%d (%s)", total, text)
}

// Text is a sentence without its end: "slot 2 starts again in 4 s (3rd failure)".
func (n NextStatus) Text(now time.Time) string {
	when := "when its turn comes"
	if n.At != nil {
		when = at(*n.At, now)
	}
	switch n.Action {
	case "start":
		return fmt.Sprintf("slot %d starts again %s (%s failure)", n.Slot, when, ordinal(n.Failures))
	case "replace":
		return fmt.Sprintf("the worker that replaces the one in slot %d starts %s", n.Slot, when)
	case "give_up":
		return fmt.Sprintf("the start in slot %d fails %s, unless it is ready (--ready-timeout)", n.Slot, when)
	case "recycle":
		return fmt.Sprintf("slot %d is recycled %s: %s", n.Slot, when, n.Reason)
	case "reload":
		return fmt.Sprintf("reload %s (--reload-every)", when)
	case "terminate":
		return fmt.Sprintf("the worker that drains in slot %d gets SIGTERM %s (--drain-timeout)", n.Slot, when)
	case "kill":
		return fmt.Sprintf("the worker that drains in slot %d is killed %s (--kill-grace)", n.Slot, when)
	}
	return n.Action + " " + when // of a newer master
}

// at is a time for people: "in 4 s", and beyond an hour "at 15:04".
func at(t, now time.Time) string {
	switch d := t.Sub(now); {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("in %d s", int(d.Seconds()+0.5))
	case d < time.Hour:
		return fmt.Sprintf("in %d min", int(d.Minutes()+0.5))
	case d < 24*time.Hour:
		return "at " + t.In(now.Location()).Format("15:04")
	}
	return "at " + t.In(now.Location()).Format("2006-01-02 15:04")
}

func ordinal(n int) string {
	switch {
	case n%100/10 == 1:
	case n%10 == 1:
		return strconv.Itoa(n) + "st"
	case n%10 == 2:
		return strconv.Itoa(n) + "nd"
	case n%10 == 3:
		return strconv.Itoa(n) + "rd"
	}
	return strconv.Itoa(n) + "th"
}

// Text says what a slot without a worker waits for.
func (s SlotStatus) Text(now time.Time) string {
	if s.At == nil {
		return "no worker is started"
	}
	return fmt.Sprintf("%s failure; starts again %s", ordinal(s.Failures), at(*s.At, now))
}
