package process

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReason(t *testing.T) {
	code := func(n int) unix.WaitStatus { return unix.WaitStatus(n << 8) }
	gone := Exit{Left: []string{"7 (x)"}, InBackground: true}
	background := func(how string) string {
		return "went into the background (it exited with code 0, 7 (x) goes on): run it in the foreground (" + how + ")"
	}
	of := func(args ...string) Exit {
		e := gone
		e.Args = args
		return e
	}
	for _, c := range []struct {
		exit  Exit
		text  string
		final bool
	}{
		{Exit{Status: code(3)}, "exited with code 3", false},
		{Exit{Status: 9, Left: []string{"7 (x)"}, InBackground: true}, "killed by SIGKILL", false},
		{Exit{Err: errors.New("unknown")}, "unknown", false},
		{Exit{Asked: true}, "exited with code 0", false},
		{Exit{Ready: true, Listened: true}, "ended by itself (exit code 0)", false},
		{Exit{Ready: true, Left: []string{"7 (helper)"}}, "ended by itself (exit code 0)", false},
		{Exit{Listened: true}, "ended by itself with exit code 0 before it was ready", true},
		{Exit{}, "ended by itself with exit code 0 before it listened: handoff runs programs that stay, not tasks that end", true},
		{of("gunicorn", "-D", "app:app"), background("gunicorn: leave out -D/--daemon"), true},
		{of("python3", "/srv/venv/bin/gunicorn"), background("gunicorn: leave out -D/--daemon"), true},
		{of("/usr/sbin/php-fpm8.2"), background("php-fpm: -F/--nodaemonize"), true},
		{of("sh", "-c", "exec nginx -c x"), background("nginx: -g 'daemon off;'"), true},
		{of("/usr/sbin/apache2"), background("apache2: -DFOREGROUND"), true},
		{of("./server"), background("leave out its option for a daemon, &, nohup and setsid"), true},
	} {
		if text, final := c.exit.Reason(); text != c.text || final != c.final {
			t.Errorf("%+v: %q, %v; want %q", c.exit, text, final, c.text)
		}
	}
}

func TestAttrs(t *testing.T) {
	for _, c := range []struct {
		exit Exit
		want string
	}{
		{Exit{Err: errors.New("unknown")}, "[]"}, {Exit{Status: 9}, "[killed_by SIGKILL]"}, {Exit{}, "[code 0]"}, {Exit{Status: 3 << 8}, "[code 3]"},
	} {
		if got := fmt.Sprint(c.exit.Attrs()); got != c.want {
			t.Errorf("%+v: %s, want %s", c.exit, got, c.want)
		}
	}
}
