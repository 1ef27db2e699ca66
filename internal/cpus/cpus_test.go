package cpus

import (
	"os"
	"path/filepath"
	"testing"
)

func TestQuota(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"none":   {map[string]string{"proc/self/cgroup": "0::/\n"}, 0},
		"v2 max": {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 0},
		"v2":     {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5},
		"v2 least": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n",
			"sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 0.5},
		"v1": {map[string]string{"proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, 3},
		"v1 none": {map[string]string{"proc/self/cgroup": "4:cpuset,cpu:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, 0},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			path := filepath.Join(root, file)
			os.MkdirAll(filepath.Dir(path), 0o755)
			os.WriteFile(path, []byte(text), 0o644)
		}
		if got := quotaAt(root); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if Allowed() < 1 {
		t.Error("fewer than one CPU")
	}
}
