package listenfds

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestNothingPassed(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, fds string
		err      string
	}{
		{"", "", ""},
		{"1", "3", ""}, // for somebody else
		{self, "0", ""},
		{self, "-1", "LISTEN_FDS is"},
		{self, "many", "LISTEN_FDS is"},
		{self, "60000", "is not open"},
	} {
		env := map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.fds}
		got, err := Passed(func(name string) string { return env[name] })
		if got != nil || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: %v, %v, want an error with %q", env, got, err, c.err)
		}
	}
}
