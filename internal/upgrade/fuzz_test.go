package upgrade

import (
	"os"
	"path/filepath"
	"testing"
)

// The binary on the disk, which may be half of one, or none.
func FuzzBuildID(f *testing.F) {
	if exe, err := os.ReadFile("/proc/self/exe"); err == nil {
		f.Add(exe[:min(len(exe), 8<<10)])
	}
	f.Add([]byte("\x7fELF"))
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if id := buildID(path); len(id) > 64*len(b)+1<<20 {
			t.Errorf("%d bytes of %d", len(id), len(b))
		}
	})
}
