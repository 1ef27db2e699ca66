package recycle

import (
	"reflect"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	now := time.Unix(100, 0)
	r := New(Config{MaxMemory: 64 << 20})
	if !r.Tick(now) {
		t.Fatal("the first sample is due at once")
	}
	if r.Tick(now.Add(time.Hour)) || !r.Deadline().IsZero() {
		t.Error("a sample is taken while one is under way")
	}
	got := r.Sampled(map[int]int64{3: 65 << 20, 1: 64 << 20, 2: 200 << 20})
	if want := []Verdict{{2, "200 MB resident, more than 64"}, {3, "65 MB resident, more than 64"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
	if due := now.Add(sampleEvery); !r.Deadline().Equal(due) || r.Tick(due.Add(-1)) || !r.Tick(due) {
		t.Errorf("the next sample is due at %v, want %v", r.Deadline(), due)
	}
	r.Configure(Config{})
	if got := r.Sampled(map[int]int64{1: 1 << 40}); got != nil {
		t.Errorf("without a limit: %v", got)
	}
	if r.Tick(now.Add(time.Hour)) || !r.Deadline().IsZero() {
		t.Error("samples without a limit")
	}
}

func TestRequests(t *testing.T) {
	r := New(Config{MaxRequests: 1000})
	limits := map[int]bool{}
	for id := 1; id <= 16; id++ {
		limit := r.MaxRequests(id)
		if limit <= 900 || limit > 1000 {
			t.Errorf("worker %d is replaced after %d requests, want more than 900, at most 1000", id, limit)
		}
		limits[limit] = true
		if _, ok := r.Served(id, limit-1); ok {
			t.Errorf("worker %d is replaced one request early", id)
		}
		if v, ok := r.Served(id, limit); !ok || v.Worker != id || v.Reason == "" {
			t.Errorf("worker %d: %v, %v", id, v, ok)
		}
	}
	if len(limits) < 12 {
		t.Errorf("16 workers share %d limits: they go together", len(limits))
	}
	if _, ok := New(Config{}).Served(1, 1<<30); ok {
		t.Error("a verdict without a limit")
	}
}
