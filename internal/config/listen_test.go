package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"handoff/master/listeners"
)

func TestListens(t *testing.T) {
	addr := netip.MustParseAddrPort
	for v, want := range map[string]listeners.Listen{
		"8000":                      {Addr: addr("[::]:8000"), Any: true},
		":8000":                     {Addr: addr("[::]:8000"), Any: true},
		"tcp:8000":                  {Addr: addr("[::]:8000"), Any: true},
		"tcp4:8000":                 {Addr: addr("0.0.0.0:8000")},
		"tcp6:8000":                 {Addr: addr("[::]:8000"), Only: true},
		"tcp6:[::1]:0":              {Addr: addr("[::1]:0"), Only: true},
		"127.0.0.1:80":              {Addr: addr("127.0.0.1:80")},
		"web=[::1]:80":              {Name: "web", Addr: addr("[::1]:80")},
		"unix:/run/a.sock":          {Path: "/run/a.sock"},
		"/run/a.sock":               {Path: "/run/a.sock"},
		"api=./a.sock,mode=660":     {Name: "api", Path: "/srv/a.sock", Mode: 0o660},
		"unix:a=b.sock,owner=0":     {Path: "/srv/a=b.sock"},
		"unix:/a,owner=:root":       {Path: "/a"},
		"unix:/a,owner=root:root":   {Path: "/a"},
		"unix:/a,mode=0600,owner=0": {Path: "/a", Mode: 0o600},
	} {
		switch {
		case strings.Contains(v, "owner=:root"):
			want.UID, want.GID = -1, 0
		case strings.Contains(v, "owner=root:root"):
		case strings.Contains(v, "owner=0"):
			want.GID = -1
		default:
			want.UID, want.GID = -1, -1
		}
		got, err := parseListen(v, "/srv")
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", v, got, err, want)
		}
	}
	for _, v := range []string{"", "web", "=80", "65536", "tcp4:[::1]:80", "tcp6:127.0.0.1:80", "localhost:80", "unix:", "unix:/a,mode=9",
		"unix:/a,mode=1777", "unix:/a,owner=no-such-user", "unix:/a,owner=:no-such-group", "unix:/a,owner=", "unix:/a,color=red",
		"unix:/" + strings.Repeat("x", 107), "a\nb=80", "8000,mode=660", "app.sock,mode=660", "unix:@a", strings.Repeat("n", 256) + "=80"} {
		if got, err := parseListen(v, "/srv"); err == nil {
			t.Errorf("%q is taken for %+v", v, got)
		}
	}
}

func FuzzListen(f *testing.F) {
	f.Add("web=[::1]:80")
	f.Add("unix:/a,mode=660,owner=root:root")
	f.Fuzz(func(t *testing.T, v string) {
		l, err := parseListen(v, "/srv")
		if err == nil && (l.Path == "") == !l.Addr.IsValid() {
			t.Errorf("%q is neither an address nor a path, or both: %+v", v, l)
		}
		if err == nil && (len(l.Path) > 107 || l.Path != "" && !strings.HasPrefix(l.Path, "/") || l.Mode > 0o777 || l.UID < -1 || l.GID < -1 || strings.ContainsAny(l.Name, " :/,\n")) {
			t.Errorf("%q: %+v", v, l)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("command = [\"a\", 1]\nworkers = 3\n[env]\nA = \"b\"\n"))
	f.Add([]byte("env = {A = 1, B = true}\nready_timeout = 1.5\n# x\nlisten = [ \"a\", # y\n ]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ParseFile("handoff.toml", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "handoff.toml") {
				t.Errorf("%q: %v", b, err)
			}
			return
		}
		cfg := NewRun()
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		cfg.Flags(fs)
		if err := file.Apply(fs); err != nil && !strings.HasPrefix(err.Error(), "handoff.toml:") {
			t.Errorf("%q: %v", b, err)
		}
		for _, kv := range cfg.Env {
			if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.ContainsRune(kv, 0) {
				t.Errorf("%q: variable %q", b, kv)
			}
		}
	})
}
