package snapshot

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"
)

// The wall clock is set by hours between two masters: what the first one waits for, the
// second one waits for as long.
func TestClockIsSet(t *testing.T) {
	for _, set := range []time.Duration{0, 3 * time.Hour, -3 * time.Hour} {
		first := NewClock(Record{})
		began := first.now
		var r Record
		fill(reflect.ValueOf(&r).Elem())
		for i, at := range r.times() {
			*at = began.Add(time.Duration(i) * time.Second)
		}
		first.Write(&r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again := r // the same facts are the same bytes: a record that differs is written
		first.Read(&again)
		first.Write(&again)
		if c, _ := json.Marshal(again); string(c) != string(b) {
			t.Errorf("%s\nwritten again is\n%s", b, c)
		}

		if r, err = Parse(b); err != nil {
			t.Fatal(err)
		}
		second := NewClock(r)
		const later = time.Minute // by the monotonic clock
		second.monotonic += later
		second.now = second.now.Add(later)
		withoutMonotonic := second.now.Round(0).Add(set)
		second.now = withoutMonotonic
		second.Read(&r)
		for i, at := range r.times() {
			if got, want := at.Sub(second.now), time.Duration(i)*time.Second-later; (got - want).Abs() > 10*time.Second {
				t.Errorf("the clock set by %v: time %d is %v from now, want %v", set, i, got, want)
			}
		}
	}
}

// A record of a version without an epoch has times of the wall clock.
func TestClockOfAnOlderRecord(t *testing.T) {
	at := time.Now().Add(time.Minute).Round(0)
	r := Record{Began: at}
	NewClock(r).Read(&r)
	if got := r.Began.Sub(at); got.Abs() > time.Second {
		t.Errorf("%v became %v", at, r.Began)
	}
	if zero := r.Fleet.Began; !zero.IsZero() {
		t.Errorf("no time became %v", zero)
	}
}

// times has every time of a record.
func TestClockHasEveryTime(t *testing.T) {
	b, err := os.ReadFile("testdata/record-current.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	known := map[*time.Time]bool{}
	for _, at := range r.times() {
		known[at] = true
	}
	var look func(v reflect.Value, at string)
	look = func(v reflect.Value, at string) {
		if p, ok := v.Addr().Interface().(*time.Time); ok {
			if !known[p] {
				t.Errorf("%s is a time that Record.times does not have", at)
			}
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					look(v.Field(i), at+"."+v.Type().Field(i).Name)
				}
			}
		case reflect.Slice:
			for i := range v.Len() {
				look(v.Index(i), at)
			}
		case reflect.Pointer:
			if !v.IsNil() {
				look(v.Elem(), at)
			}
		}
	}
	look(reflect.ValueOf(&r).Elem(), "record")
}
