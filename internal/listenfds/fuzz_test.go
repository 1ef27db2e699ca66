package listenfds

import (
	"strings"
	"testing"
)

// The descriptors are those from 3 on, in their order, and at most maxPassed.
func FuzzPassed(f *testing.F) {
	f.Add("7", "2", "web:api")
	f.Add("7", "-1", "")
	f.Add("8", "1", "")
	f.Add("7", "99999999999999999999", ":::")
	f.Add("+7", "1", "keep-w1-pid")
	f.Fuzz(func(t *testing.T, pid, n, names string) {
		all, err := parse(func(name string) string {
			return map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": n, "LISTEN_FDNAMES": names}[name]
		}, 7)
		if err != nil && len(all) > 0 || len(all) > maxPassed {
			t.Errorf("%q %q %q: %d, %v", pid, n, names, len(all), err)
		}
		for i, p := range all {
			if p.FD != 3+i || strings.Contains(p.Name, ":") || p.Name != "" && !strings.Contains(names, p.Name) {
				t.Errorf("%q %q %q: %+v", pid, n, names, p)
			}
		}
	})
}
