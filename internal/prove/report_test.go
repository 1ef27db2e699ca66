package prove

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"handoff/internal/load"
)

var update = flag.Bool("update", false, "rewrite testdata")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// result has so many requests, each answered within its number of tenths of a
// millisecond, less what failed.
func result(requests int, failures ...load.Failure) load.Result {
	r := load.Result{Requests: int64(requests), Connections: 4, Failed: map[load.Class]int64{}, Kinds: map[load.Kind]int64{},
		Samples: failures, Elapsed: time.Second, Latency: load.NewLatency()}
	for i := range requests - len(failures) {
		r.Latency.RecordValue(int64(i+1) * 100)
	}
	for _, f := range failures {
		r.Failed[f.Class]++
		r.Kinds[load.Kind{Class: f.Class, Reused: f.Reused, Stage: f.Stage}]++
	}
	return r
}

var (
	reset  = load.Failure{Class: load.Reset, Reused: true, Stage: load.Answer, Err: errors.New("read: connection reset by peer\nand more")}
	cut    = load.Failure{Class: load.EOF, Stage: load.Body, Err: errors.New("body: unexpected EOF")}
	inside = load.Failure{Class: load.Inside, Reused: true, Stage: load.Answer, Err: errors.New("read: EOF")}
	other  = load.Failure{Class: load.Other, Stage: load.Body, Err: errors.New("malformed HTTP response")}
)

// reports has the reports of the golden files, by name.
func reports() map[string]*Report {
	idle := result(40)
	idle.IdleClosed = 1234
	return map[string]*Report{
		"nothing-lost": {Wants: []string{"GET /: 200"}, Parts: []Part{
			{Name: Undisturbed, New: result(10), Kept: result(10), Elapsed: time.Second},
			{Name: string(Reload), Times: 2, Took: []time.Duration{time.Second, 1500 * time.Millisecond}, New: result(20), Kept: result(30), Elapsed: 2 * time.Second},
			{Name: string(Scale), Times: 1, Note: "2 → 3 → 2 workers", New: result(5), Kept: result(5), Elapsed: time.Second},
		}},
		"lost": {Parts: []Part{
			{Name: Undisturbed, New: result(10), Kept: result(10), Elapsed: time.Second},
			{Name: string(Reload), Times: 1, New: result(20, cut, other), Kept: result(1990, reset, reset), Elapsed: time.Second},
			{Name: string(Broken), Times: 1, Error: "a program that exits at once was put into service", New: result(5), Kept: result(5, reset), Elapsed: time.Second},
			{Name: string(KillWorker), Times: 1, New: result(5), Kept: result(5, inside), Elapsed: time.Second},
		}},
		"inside": {AllowInside: true, Parts: []Part{
			{Name: Undisturbed, New: result(10), Kept: result(10), Elapsed: time.Second},
			{Name: string(KillWorker), Times: 1, New: result(5), Kept: result(5, inside), Elapsed: time.Second},
		}},
		"lost-before": {Parts: []Part{
			{Name: Undisturbed, New: result(10, cut), Kept: result(10), Elapsed: time.Second},
		}},
		"idle-closed": {Echo: true, Parts: []Part{
			{Name: Undisturbed, New: result(10), Kept: result(10), Elapsed: time.Second},
			{Name: string(Reload), Times: 1, New: result(10), Kept: idle, Elapsed: time.Second},
		}},
	}
}

func TestReports(t *testing.T) {
	for name, r := range reports() {
		var b strings.Builder
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", b.String())
	}
}

// The fields of the JSON are a promise: a diff of this file may add, not change.
func TestJSON(t *testing.T) {
	b, err := json.MarshalIndent(reports()["lost"].JSON(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "lost.json", string(b)+"\n")
}

// A loss on a kept connection is one that another --keep-connections cures; said where it has
// a part in drains.
func TestKeepConnections(t *testing.T) {
	for keep, want := range map[string]string{"off": "--keep-connections local", "local": "--keep-connections all", "all": "", "": ""} {
		r := Report{Keep: keep, Parts: []Part{{Name: string(Reload), Kept: result(1, reset)}}}
		said := strings.Join(r.Explain(), "\n")
		if got := strings.Contains(said, "--keep-connections"); got != (want != "") || !strings.Contains(said, want) {
			t.Errorf("%s: %q; want %q", keep, said, want)
		}
		r.Parts[0].Kept = result(1, cut)
		if said := strings.Join(r.Explain(), "\n"); strings.Contains(said, "--keep-connections") {
			t.Errorf("%s: %q", keep, said)
		}
	}
}

func TestVerdict(t *testing.T) {
	part := func(err string, failures ...load.Failure) Part {
		return Part{Name: string(KillWorker), Error: err, New: result(2000), Kept: result(10, failures...)}
	}
	for _, c := range []struct {
		r      Report
		proven bool
		want   string
	}{
		{Report{Parts: []Part{part("")}}, true, "Nothing was lost: 0 of 2 010 requests."},
		{Report{Parts: []Part{part("", inside)}}, false, "LOST: 1 of 2 010 requests, all of them inside workers killed with -9."},
		{Report{Parts: []Part{part("", inside)}, AllowInside: true}, true, "Nothing was lost, except 1 of 2 010 requests inside workers killed with -9."},
		{Report{Parts: []Part{part("", inside, reset)}, AllowInside: true}, false, "LOST: 2 of 2 010 requests, 1 of them inside workers killed with -9."},
		{Report{Parts: []Part{part("", reset)}}, false, "LOST: 1 of 2 010 requests."},
		{Report{Parts: []Part{part("handoff has exited")}}, false, "NOT PROVEN: kill -9 of a worker: handoff has exited."},
		{Report{Parts: []Part{part("handoff has exited", reset)}}, false, "LOST: 1 of 2 010 requests.\nNOT PROVEN: kill -9 of a worker: handoff has exited."},
		{Report{Parts: []Part{part("no worker serves", inside)}, AllowInside: true}, false, "LOST: 1 of 2 010 requests, all of them inside workers killed with -9.\nNOT PROVEN: kill -9 of a worker: no worker serves."},
	} {
		if got := c.r.Verdict(); got != c.want || c.r.Proven() != c.proven {
			t.Errorf("%v, %q; want %v, %q", c.r.Proven(), got, c.proven, c.want)
		}
	}
}

// Each kind of failure has an advice of its own.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		part   Action
		class  load.Class
		reused bool
		stage  load.Stage
		want   string
	}{
		{Upgrade, load.Reset, true, load.Answer, "a defect of handoff"},
		{KillMaster, load.Refused, false, load.Connect, "a defect of handoff"},
		{Reload, load.Reset, false, load.Connect, "a defect of handoff"},
		{KillMaster, load.Status, true, load.Whole, "answered with another status"},
		{KillWorker, load.Inside, true, load.Answer, "--allow-inside"},
		{Reload, load.Order, false, load.Whole, "--no-hold"},
		{Undisturbed, load.Status, true, load.Whole, "varies without any disturbance"},
		{Reload, load.Status, false, load.Whole, "--ready-when ready"},
		{Reload, load.Timeout, false, load.Connect, "accept queue was full"},
		{Reload, load.Timeout, true, load.Answer, "--stall-kill"},
		{Reload, load.Refused, false, load.Connect, "No socket was listening"},
		{Reload, load.EOF, true, load.Answer, "RFC 9112"},
		{Reload, load.Reset, true, load.Write, "RFC 9112"},
		{Reload, load.EOF, false, load.Body, "--drain-timeout"},
		{Reload, load.Reset, false, load.Answer, "dropped a request"},
		{Reload, load.Other, false, load.Whole, ""},
	} {
		got := new(Report).helps(lost{part: string(c.part), kind: load.Kind{Class: c.class, Reused: c.reused, Stage: c.stage}})
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s, %s, reused %v, %s: %q; want %q", c.part, c.class, c.reused, c.stage, got, c.want)
		}
		if strings.Contains(got, ".\n") && c.class != load.EOF && c.class != load.Reset {
			t.Errorf("more lines than needed: %q", got)
		}
	}
	for _, c := range load.Classes {
		if words[c] == "" {
			t.Errorf("no words for %s", c)
		}
	}
}

// What the program does anyway, twice as often, is not put down to a disturbance.
func TestIdleClosed(t *testing.T) {
	kept := func(closed int64) load.Result { r := result(10); r.IdleClosed = closed; return r }
	r := Report{Parts: []Part{{Kept: kept(10), Elapsed: 5 * time.Second}, {Kept: kept(7), Elapsed: 2 * time.Second}, {Kept: kept(3), Elapsed: 3 * time.Second}}}
	if n := r.idleClosed(); n != 0 && n != 7-2*2*2 {
		t.Errorf("%d", n)
	}
	r.Parts[1].Kept.IdleClosed = 20
	if n := r.idleClosed(); n != 20-2*2*2 {
		t.Errorf("%d; want 12", n)
	}
	if n := (&Report{}).idleClosed(); n != 0 {
		t.Errorf("%d of no part", n)
	}
}

func TestThousands(t *testing.T) {
	var got []string
	for _, n := range []int64{0, 7, 999, 1000, 12345, 1234567} {
		got = append(got, thousands(n))
	}
	if want := []string{"0", "7", "999", "1 000", "12 345", "1 234 567"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}
