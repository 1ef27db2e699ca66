package programs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// obtain returns what of a row is missing, after -install has tried.
func (r row) obtain(t *testing.T) string {
	missing := r.missing()
	if missing == "" || !*install {
		return missing
	}
	var apt, npm []string
	for _, f := range r.from {
		how, what, _ := strings.Cut(f, ":")
		switch how {
		case "apt":
			apt = append(apt, what)
		case "npm":
			npm = append(npm, what)
		case "go":
			fetch(t, []string{"GOBIN=" + filepath.Join(cache(), "bin")}, "go", "install", what)
		}
	}
	if len(apt) > 0 {
		fetch(t, []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", append([]string{"install", "-yq", "--no-install-recommends"}, apt...)...)
	}
	if len(npm) > 0 {
		os.MkdirAll(cache(), 0o755)
		fetch(t, nil, "npm", append([]string{"install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", cache()}, npm...)...)
	}
	if r.missing() != "" && len(r.build) > 0 {
		for name, text := range r.files {
			put(t, filepath.Join(cache(), name), strings.ReplaceAll(text, "%CACHE%", cache()))
		}
		fetch(t, nil, r.build[0], r.build[1:]...)
	}
	return r.missing()
}

func (r row) missing() string {
	for _, n := range r.needs {
		n = strings.ReplaceAll(n, "%CACHE%", cache())
		if strings.Contains(n, "/") {
			if found, _ := filepath.Glob(n); len(found) == 0 {
				return n
			}
		} else if _, err := exec.LookPath(n); err != nil {
			return n
		}
	}
	return ""
}

func fetch(t *testing.T, env []string, name string, args ...string) {
	cmd := exec.Command(name, args...)
	os.MkdirAll(cache(), 0o755)
	cmd.Dir = cache()
	cmd.Env = append(os.Environ(), env...)
	for i := range cmd.Args {
		cmd.Args[i] = strings.ReplaceAll(cmd.Args[i], "%CACHE%", cache())
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("%v: %v\n%s", cmd, err, out)
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
