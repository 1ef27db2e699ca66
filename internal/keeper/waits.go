package keeper

import (
	"fmt"
	"strings"
	"time"
)

// Waits are the keeper's timeouts. Zero means the default.
type Waits struct {
	Stop         time.Duration // for a master to handle a stop; then for workers to handle SIGTERM: 10 s
	Candidate    time.Duration // for a candidate to be ready, after the master has exited: 30 s
	BackoffFirst time.Duration // before a restart of a master that has died twice; doubled each time: 50 ms
	BackoffMax   time.Duration // maximum of that: 2 s
	Stable       time.Duration // lifetime of a master after which its death counts as the first: 1 s
	Trial        time.Duration // lifetime of a master of a new binary after which the previous binary is not used again: 10 s
	Give         time.Duration // for a master to read the store: 2 s
	End          time.Duration // for the exit of a previous keeper's master: 10 s
	Kill         time.Duration // for the exit of the processes that are killed last: 5 s
}

func (w Waits) orDefaults() Waits {
	for _, d := range []struct {
		wait  *time.Duration
		usual time.Duration
	}{
		{&w.Stop, 10 * time.Second}, {&w.Candidate, 30 * time.Second}, {&w.BackoffFirst, 50 * time.Millisecond},
		{&w.BackoffMax, 2 * time.Second}, {&w.Stable, time.Second}, {&w.Trial, 10 * time.Second}, {&w.Give, 2 * time.Second}, {&w.End, 10 * time.Second}, {&w.Kill, 5 * time.Second},
	} {
		if *d.wait == 0 {
			*d.wait = d.usual
		}
	}
	return w
}

// ParseWaits parses timeouts, shortened by tests: "stop=1s,backoff-max=100ms". "" is the
// defaults.
func ParseWaits(text string) (w Waits, err error) {
	at := map[string]*time.Duration{"stop": &w.Stop, "candidate": &w.Candidate, "backoff-first": &w.BackoffFirst,
		"backoff-max": &w.BackoffMax, "stable": &w.Stable, "trial": &w.Trial, "give": &w.Give, "end": &w.End, "kill": &w.Kill}
	for _, one := range strings.Split(text, ",") {
		if one == "" {
			continue
		}
		name, value, _ := strings.Cut(one, "=")
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 || at[name] == nil {
			return Waits{}, fmt.Errorf("invalid keeper wait %q: want a name and a duration, like stop=1s", one)
		}
		*at[name] = d
	}
	return w, nil
}
