package bindintercept

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// The conditions are an argument of the process that becomes the worker.
func FuzzConditions(f *testing.F) {
	f.Add(`{"user":{"uid":1,"gid":1,"groups":[2]},"umask":18,"nice":-5,"limits":[{"name":"nofile","resource":7,"soft":1,"hard":2}],"cpus":[0],"cgroup":"/x","death":15,"parent":7}`)
	f.Add(`{"umask":-1,"limits":[{"hard":18446744073709551615}]}`)
	f.Add(`{"limits":[],"cpus":[]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c, again Conditions
		if json.Unmarshal([]byte(text), &c) != nil {
			return
		}
		if said := c.text(); said != "" && (json.Unmarshal([]byte(said), &again) != nil || again.text() != said || reflect.ValueOf(again).IsZero() && !c.None()) {
			t.Errorf("%s became %s", text, said)
		}
	})
}

// The path of a unix socket is in the memory of a worker.
func FuzzPath(f *testing.F) {
	f.Add([]byte("\x01\x00/run/s\x00rest"))
	f.Add([]byte("\x01\x00\x00abstract\x00name"))
	f.Add([]byte("\x02\x00\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path, err := parsePath(b)
		if err == nil && (path == "" || len(path) > len(b)-2 || path[0] != 0 && strings.Contains(path, "\x00")) {
			t.Errorf("%q became %q", b, path)
		}
	})
}
