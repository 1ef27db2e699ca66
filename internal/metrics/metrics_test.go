package metrics

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/api"
)

var update = flag.Bool("update", false, "rewrite testdata")

// The output as Prometheus reads it, of a service in a reload and of one that has not
// begun.
func TestWrite(t *testing.T) {
	ready := api.Histogram{}
	for _, d := range []time.Duration{0, 50 * time.Millisecond, time.Second, 90 * time.Second, time.Hour} {
		ready.Add(d)
	}
	full := api.Metrics{
		Status: api.Status{Name: "web", Version: `1.2.3 "rc\1"`, Started: time.UnixMilli(1764150000500), State: api.StateReloading, Generation: 2, Wanted: 3, Slots: 2, Ready: 2,
			Addresses: []api.AddressStatus{{Address: "127.0.0.1:3000", Balance: "even", Queue: 4}, {Address: "/run/a\nb\xff", Balance: "shared"}},
			Workers: []api.WorkerStatus{
				{Slot: 0, PID: 101, Worker: 1, Generation: 2, Phase: api.PhaseServing, Steered: true, Queue: 3, RSS: 1 << 26, CPU: 0.25},
				{Slot: 0, PID: 103, Worker: 3, Generation: 3, Phase: api.PhaseStarting},
				{Slot: 1, PID: 102, Worker: 2, Generation: 2, Phase: api.PhaseQuieting, Steered: true, Queue: 1, RSS: 1 << 27, CPU: 1e6}}},
		Counters: api.Counters{Reloads: map[string]int{"served": 3}, Restarts: map[string]int{"crashed": 2, "hung": 1}, Steerings: 4, Rescued: 5,
			Stranded: 6, Masters: 7, Upgrades: 8, Stalls: 9, LinesLost: 11, MaxQueue: 10, Ready: ready},
	}
	for path, m := range map[string]api.Metrics{"testdata/full.txt": full, "testdata/empty.txt": {}} {
		var b bytes.Buffer
		if err := Write(&b, m, 12); err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(b.String(), runtime.Version(), "GOVERSION")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s, %v:\n%s", path, err, got)
		}
		wellFormed(t, got)
	}
}

// wellFormed checks what Prometheus asks of the format: a family's HELP and TYPE come
// once, before its samples and next to them; no sample comes twice; buckets never fall.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	family, families, seen := "", map[string]bool{}, map[string]bool{}
	last := math.Inf(-1)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# ") {
			w := strings.Fields(line)
			if w[1] == "HELP" && families[w[2]] || w[1] == "TYPE" && w[2] != family {
				t.Errorf("%q", line)
			}
			family, last = w[2], math.Inf(-1)
			families[family] = true
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil || !strings.HasPrefix(line, family) || seen[line[:at]] {
			t.Errorf("%q, %v", line, err)
		}
		seen[line[:at]] = true
		if strings.HasPrefix(line, family+"_bucket") {
			if value < last {
				t.Errorf("%q falls", line)
			}
			last = value
		}
	}
}

// A reader that has gone is an error.
func TestWriteFails(t *testing.T) {
	if err := Write(broken{}, api.Metrics{}, 0); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }
