package snapshot

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// Every released version's record is read, whole: what it has is found again in
// what this version would write. A record-N.json is never changed.
func TestRecordsOfEveryVersion(t *testing.T) {
	files, _ := filepath.Glob("testdata/record-[0-9]*.json")
	if len(files) < Version {
		t.Fatalf("%v: there must be one for each version up to %d", files, Version)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(b)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		var was, is any
		json.Unmarshal(b, &was)
		again, _ := json.Marshal(r)
		json.Unmarshal(again, &is)
		if missing := lost("", was, is); len(missing) > 0 {
			t.Errorf("%s: not read: %v", file, missing)
		}
	}
}

// lost lists what is in was and not in is.
func lost(at string, was, is any) []string {
	switch was := was.(type) {
	case map[string]any:
		m, ok := is.(map[string]any)
		if !ok {
			return []string{at}
		}
		var all []string
		for k, v := range was {
			all = append(all, lost(at+"."+k, v, m[k])...)
		}
		return all
	case []any:
		l, ok := is.([]any)
		if !ok || len(l) != len(was) {
			return []string{at}
		}
		var all []string
		for i, v := range was {
			all = append(all, lost(at, v, l[i])...)
		}
		return all
	}
	if !reflect.DeepEqual(was, is) {
		return []string{at}
	}
	return nil
}

// empty finds a field that is zero in every element.
func empty(v reflect.Value, at string) string {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type().PkgPath() == "time" || v.Type().PkgPath() == "net/netip" {
			return ""
		}
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				return at + "." + v.Type().Field(i).Name
			}
			if hole := empty(v.Field(i), at+"."+v.Type().Field(i).Name); hole != "" {
				return hole
			}
		}
	case reflect.Slice:
		if v.Len() > 0 && v.Index(0).Kind() == reflect.Struct {
			return empty(v.Index(0), at)
		}
	case reflect.Pointer:
		return empty(v.Elem(), at)
	}
	return ""
}

// What this version writes of a record with everything in it. -update rewrites it; a
// diff that changes a line, or takes one away, breaks an upgrade.
func TestRecordOfThisVersion(t *testing.T) {
	const file = "testdata/record-current.json"
	b, err := os.ReadFile("testdata/record-1.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	fill(reflect.ValueOf(&r).Elem())
	r.Version = Version
	if hole := empty(reflect.ValueOf(r), "record"); hole != "" {
		t.Fatalf("nothing in %s: %s shows less than it should", hole, file)
	}
	now, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		os.WriteFile(file, now, 0o644)
	}
	if was, _ := os.ReadFile(file); !bytes.Equal(was, now) {
		t.Errorf("%s differs; -update rewrites it. Now:\n%s", file, now)
	}
	again, err := Parse(now)
	want, _ := json.Marshal(r)
	if got, _ := json.Marshal(again); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read again it is %s, %v; want %s", got, err, want)
	}
}

var update = flag.Bool("update", false, "rewrite testdata/record-current.json")

// fill gives a value to every field that has none: those that were added since record-1.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if p := v.Type().PkgPath(); p == "time" || p == "net/netip" {
			if at, ok := v.Addr().Interface().(*time.Time); ok && at.IsZero() {
				*at = time.Unix(1_800_000_000, 0).UTC()
			}
			if at, ok := v.Addr().Interface().(*netip.AddrPort); ok && !at.IsValid() {
				*at = netip.MustParseAddrPort("127.0.0.1:8000")
			}
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		if v.Len() == 0 && v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		if v.Len() == 0 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key)
			fill(value)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(key, value)
		}
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem())
	case reflect.String:
		if v.Len() == 0 {
			v.SetString("text")
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		if v.Int() == 0 {
			v.SetInt(1)
		}
	case reflect.Uint64:
		if v.Uint() == 0 {
			v.SetUint(1)
		}
	case reflect.Float64:
		if v.Float() == 0 {
			v.SetFloat(0.5)
		}
	}
}

func TestRecordOfALaterVersion(t *testing.T) {
	for _, b := range []string{`{"version":2}`, `{"version":0}`, `{}`, `[]`, ``, `{"version":`} {
		if _, err := Parse([]byte(b)); err == nil {
			t.Errorf("%q is taken for a record", b)
		}
	}
	// What a later master of the same version has added is no harm.
	if _, err := Parse([]byte(`{"version":1,"novelty":{"a":[1]}}`)); err != nil {
		t.Error(err)
	}
}

// What a generation is started from may be of any bytes.
func TestRecordOfBytes(t *testing.T) {
	was := Generation{Gen: 1, Path: "/p\xff", Args: []Text{"a", "b\x80c", ""}, Env: []Text{"X=a\xff\xe9z", "Y={\"base64\":1}"}}
	b, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	var is Generation
	if err := json.Unmarshal(b, &is); err != nil || !reflect.DeepEqual(was, is) {
		t.Errorf("%+v, %v; want %+v", is, err, was)
	}
}

func FuzzRecord(f *testing.F) {
	all, _ := filepath.Glob("testdata/record-*.json") // of every version, and today's
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version": 2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		one, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(one)
		two, _ := json.Marshal(again)
		if err != nil || !bytes.Equal(one, two) {
			t.Errorf("%v\n%s\n%s", err, one, two)
		}
	})
}
