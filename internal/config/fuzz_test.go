package config

import (
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"handoff/internal/cpus"
)

// --hold, --no-hold, --may-drop and --allow: what is taken means what it says. An address that it does
// not name is never allowed.
func FuzzHold(f *testing.F) {
	for _, s := range []string{"8000", "8000-8010", "127.0.0.1:80", "[::1]:8000-8010", ":80", "[fe80::1%2]:80", "::1:80", "80-79", "[::ffff:127.0.0.1]:80", "]:1", "0-65535", "[[::1]]:1"} {
		f.Add(s, uint16(8000), "127.0.0.1")
	}
	f.Fuzz(func(t *testing.T, said string, port uint16, host string) {
		a, err := parseAddresses(said)
		if err != nil {
			return
		}
		if a.from > a.to || strings.Count(said, "-") == 0 && a.from != a.to {
			t.Errorf("%q: %+v", said, a)
		}
		at, err := netip.ParseAddr(host)
		if err != nil {
			return
		}
		if got, want := a.has(netip.AddrPortFrom(at, port)), a.from <= port && port <= a.to && (!a.addr.IsValid() || a.addr.Unmap() == at.Unmap()); got != want {
			t.Errorf("%q has %v:%d: %v", said, at, port, got)
		}
		if a.addr.IsValid() && !strings.Contains(said, ":") {
			t.Errorf("%q: %+v", said, a)
		}
		if !a.addr.IsValid() && strings.ContainsAny(strings.TrimSuffix(said, said[strings.LastIndexByte(said, ':')+1:]), "0123456789abcdef") {
			t.Errorf("%q is every address", said)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30s", "1m30s", "90", "1.5", "1e9", "NaN", "-1", "inf", "0x1p-2", "9007199.254740993s", "2540400h10m10s", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		d, err := ParseDuration(said)
		if err != nil {
			return
		}
		if d < 0 || d > 1<<53 {
			t.Errorf("%q: %v", said, d)
		}
		v := durationValue(d)
		if again, err := ParseDuration(v.String()); err != nil || again != d {
			t.Errorf("%q: %v, and %s is %v, %v", said, d, v.String(), again, err)
		}
		if plain, err := time.ParseDuration(said); err == nil && plain != d && said != "0" {
			t.Errorf("%q: %v, not %v", said, d, plain)
		}
	})
}

func FuzzMemory(f *testing.F) {
	for _, s := range []string{"512M", "1.5G", "1GiB", "100", "0.1", "1e300", "1e-300", "NaN", "T", "0x1p60", "9e18", "-1M", "1Ki", "inf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		r := Recycle{MaxMemory: said}
		n, err := r.MaxMemoryBytes()
		if err == nil && (n == 0) != (said == "") || err == nil && (n < 0 || n > math.MaxInt64/2+1) || err != nil && n != 0 {
			t.Errorf("%q: %d, %v", said, n, err)
		}
	})
}

func FuzzLimit(f *testing.F) {
	for _, s := range []string{"nofile=65536", "NOFILE=1:2", "core=unlimited", "core=2:1", "nofile=", "cpu=1:unlimited", "x=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		l, err := limitOf(said)
		if err != nil {
			return
		}
		if r, ok := limits[l.Name]; !ok || r != l.Resource || l.Soft > l.Hard {
			t.Errorf("%q: %+v", said, l)
		}
	})
}

func FuzzCPUs(f *testing.F) {
	for _, s := range []string{"0", "auto", "0-0", "0,0", "1-0", "-1", "0-8191", "8192", "0-99999999999"} {
		f.Add(s)
	}
	allowed := cpus.List()
	f.Fuzz(func(t *testing.T, said string) {
		list, err := cpuList(said)
		if err != nil {
			return
		}
		if len(list) == 0 || len(list) > 8192*(strings.Count(said, ",")+1) {
			t.Errorf("%q: %d", said, len(list))
		}
		for _, n := range list {
			if !slices.Contains(allowed, n) {
				t.Errorf("%q: %d", said, n)
			}
		}
	})
}

// The path of a cgroup never leads out of the hierarchy.
func FuzzCgroup(f *testing.F) {
	f.Add("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "0::/system.slice/web.service\n", "workers")
	f.Add("cgroup2 /my\\040cgroups cgroup2 rw 0 0\n", "1:cpu:/\n0::/../../x\n", "/a/b")
	f.Add("none /../cg cgroup2\n", "0::/a/../../..\n", "../x")
	f.Fuzz(func(t *testing.T, mounts, cgroups, name string) {
		dir, err := cgroupIn(mounts, cgroups, name)
		if err != nil {
			return
		}
		in := false
		for line := range strings.Lines(mounts) {
			if w := strings.Fields(line); len(w) > 2 && w[2] == "cgroup2" {
				rel, err := filepath.Rel(filepath.Join(unescapeMount(w[1])), dir)
				in = in || err == nil && filepath.IsLocal(rel)
			}
		}
		if !in {
			t.Errorf("mounts %q, cgroups %q, %q: %s", mounts, cgroups, name, dir)
		}
	})
}

func FuzzWorkers(f *testing.F) {
	for _, s := range []string{"4", "max", "max-1", "max+1", "max-99999999999999999999", "0", "1024", "1025", "+3"} {
		f.Add(s, "even", "")
	}
	f.Add("max", "sticky", "3000,3001")
	f.Fuzz(func(t *testing.T, workers, balance, ports string) {
		r := NewRun()
		r.Workers, r.Balance = workers, balance
		if ports != "" {
			r.Ports = strings.Split(ports, ",")
		}
		list, err := r.PortNumbers()
		if err == nil && len(list) != len(r.Ports) {
			t.Errorf("%q: %v", ports, list)
		}
		for i, n := range list {
			if n < 1 || n > 65535 || slices.Contains(list[:i], n) {
				t.Errorf("%q: %v", ports, list)
			}
		}
		if n, err := r.Slots(); err == nil && (n < 1 || n > r.MaxSlots()) {
			t.Errorf("%q, %s, %q: %d", workers, balance, ports, n)
		}
	})
}
