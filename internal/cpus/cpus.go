// Package cpus says how many CPUs this process may use: its affinity, cut by the
// CPU quota of its cgroups.
package cpus

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Allowed returns the number of CPUs, at least 1. A part of a CPU counts as one:
// with a quota of 1.5, two workers can use what is paid for.
func Allowed() int {
	n := 1
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		n = set.Count()
	}
	if quota := quotaAt("/"); quota > 0 {
		n = min(n, int(math.Ceil(quota)))
	}
	return max(n, 1)
}

// quotaAt returns the smallest quota on the way from this process's cgroup to
// the root, in CPUs; 0 is none. root is "/" but in tests.
func quotaAt(root string) float64 {
	return smallest(read(root, "proc/self/cgroup"), func(path string) string { return read(root, path) })
}

// smallest is quotaAt's, of the text of proc/self/cgroup, and of files by their path from
// the root.
func smallest(membership string, file func(path string) string) float64 {
	quota := 0.0
	for line := range strings.Lines(membership) {
		// 0::/path (v2), or 4:cpu,cpuacct:/path (v1)
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		of, base := quotaV2, "sys/fs/cgroup"
		if part[1] != "" {
			if !strings.Contains(","+part[1]+",", ",cpu,") {
				continue
			}
			of, base = quotaV1, "sys/fs/cgroup/cpu"
		}
		for dir := filepath.Join("/", part[2]); ; dir = filepath.Dir(dir) { // .. leads no higher
			at := func(name string) string { return file(filepath.Join(base, dir, name)) }
			if q := of(at); q > 0 && (quota == 0 || q < quota) {
				quota = q
			}
			if dir == "/" {
				break
			}
		}
	}
	return quota
}

func quotaV2(file func(name string) string) float64 {
	f := strings.Fields(file("cpu.max"))
	if len(f) != 2 {
		return 0
	}
	return ratio(f[0], f[1])
}

func quotaV1(file func(name string) string) float64 {
	return ratio(file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"))
}

func read(dir, file string) string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func ratio(quota, period string) float64 {
	q, err1 := strconv.ParseFloat(quota, 64) // "max" and -1 are none
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || !(q > 0 && p > 0) || math.IsInf(q/p, 0) {
		return 0
	}
	return q / p
}

// List returns the numbers of the CPUs that this process's affinity allows.
func List() (list []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for n := range len(set) * 64 {
		if set.IsSet(n) {
			list = append(list, n)
		}
	}
	return list
}
