package cpus

import (
	"math"
	"strings"
	"testing"
)

// A quota is a positive number of CPUs, or none; nothing is read outside of the hierarchy.
func FuzzQuota(f *testing.F) {
	f.Add("0::/a/b\n", "150000 100000")
	f.Add("4:cpu,cpuacct:/x\n12:cpuset:/\n0::/\n", "-1")
	f.Add("0::/../../x\n", "max 100000")
	f.Add("0::a/b (deleted)\n", "inf 1")
	f.Add("::", "1e308 1e-308")
	f.Fuzz(func(t *testing.T, membership, text string) {
		reads := 0
		q := smallest(membership, func(path string) string {
			if reads++; strings.Contains("/"+path+"/", "/../") || !strings.HasPrefix(path, "sys/fs/cgroup/") {
				t.Errorf("%q: reads %q", membership, path)
			}
			return text
		})
		if q < 0 || math.IsInf(q, 0) || math.IsNaN(q) {
			t.Errorf("%q, %q: %v", membership, text, q)
		}
		if reads > 2*(len(membership)+1) {
			t.Errorf("%q: %d reads", membership, reads)
		}
	})
}
