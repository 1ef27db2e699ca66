package config

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The drain signal of a command line: of a program that is known, however it is started,
// and never another than the user's.
func TestDrainSignalOf(t *testing.T) {
	for _, c := range []struct {
		flags      string
		command    string // parted by |
		executable string // of the program
		want       unix.Signal
	}{
		{"", "gunicorn|app:app", "", unix.SIGTERM},
		{"", "nginx|-g|daemon off;", "", unix.SIGQUIT},
		{"", "/usr/sbin/nginx", "/usr/sbin/nginx", unix.SIGQUIT},
		{"", "web", "/opt/nginx/sbin/nginx", unix.SIGQUIT},
		{"--drain-signal TERM", "nginx", "", unix.SIGTERM},
		{"--drain-signal USR1", "uwsgi", "", unix.SIGUSR1},
		{"--contract node", "nginx", "", unix.SIGTERM},
		{"--contract activation --listen 80", "php-fpm8.2|-F", "", unix.SIGQUIT},
		{"", "php-fpm", "", unix.SIGQUIT},
		{"", "php|-S|:80", "", unix.SIGTERM},
		{"", "apache2|-DFOREGROUND", "", unix.SIGWINCH},
		{"", "httpd|-DFOREGROUND", "/usr/sbin/httpd", unix.SIGWINCH},
		{"", "httpd|-f", "/bin/busybox", unix.SIGTERM},
		{"", "busybox|httpd|-f", "/bin/busybox", unix.SIGTERM},
		{"", "lighttpd|-D", "", unix.SIGINT},
		{"", "waitress-serve|app:app", "", unix.SIGINT},
		{"", "python3|-m|waitress|app:app", "", unix.SIGINT},
		{"", ".venv/bin/python|-u|-X|dev|-m|waitress", "/usr/bin/python3.11", unix.SIGINT},
		{"", "python3|/usr/bin/waitress-serve|app:app", "", unix.SIGINT},
		{"", "python3|app.py|waitress-serve", "", unix.SIGTERM},
		{"", "python3|-c|import waitress", "", unix.SIGTERM},
		{"", "python3|-m|http.server|-m|waitress", "", unix.SIGTERM},
		{"", "unicorn|-c|u.rb", "", unix.SIGQUIT},
		{"", "uwsgi|--ini|x.ini", "/usr/bin/uwsgi-core", unix.SIGINT},
		{"", "uwsgi_python311", "", unix.SIGINT},
		{"", "env|A=b|-u|C|uwsgi", "", unix.SIGINT},
		{"", "/usr/bin/env|-i|PATH=/bin|sh|-c|exec nginx", "", unix.SIGQUIT},
		{"", "env|-S|nginx", "", unix.SIGTERM},
		{"", "env", "", unix.SIGTERM},
		{"", "sh|-c|nginx -g 'daemon off;'", "", unix.SIGQUIT},
		{"", `sh|-ec|cd "/srv/a b" && A=1 exec nginx -g "daemon off;"`, "", unix.SIGQUIT},
		{"", "bash|-c|exec env A=1 nginx;\n", "", unix.SIGQUIT},
		{"", "sh|-c|nginx; exec gunicorn", "", unix.SIGTERM},
		{"", "sh|-c|migrate; nginx", "", unix.SIGTERM},
		{"", "sh|-c|nginx >log", "", unix.SIGTERM},
		{"", "sh|-c|exec $SERVER nginx", "", unix.SIGTERM},
		{"", "sh|-c|'nginx", "", unix.SIGTERM},
		{"", "sh|-c|exec -a nginx gunicorn", "", unix.SIGTERM},
		{"", "sh|-c", "", unix.SIGTERM},
		{"", "sh|-c|exec", "", unix.SIGTERM},
		{"", "sh|nginx", "", unix.SIGTERM},
		{"", "nginx-exporter", "", unix.SIGTERM},
		{"", "dumb-init|nginx|-g|daemon off;", "", unix.SIGQUIT},
		{"", "/usr/bin/dumb-init|-c|--|nginx", "", unix.SIGQUIT},
		{"", "dumb-init|-r|15:2|nginx", "", unix.SIGTERM},
		{"", "tini|-g|-p|SIGTERM|--|php-fpm8.2|-F", "", unix.SIGQUIT},
		{"", "tini-static|sh|-c|exec uwsgi --ini x", "", unix.SIGINT},
		{"", "setsid|-w|lighttpd|-D", "", unix.SIGINT},
		{"", "setsid|-f|nginx", "", unix.SIGTERM},
		{"", "nice|-n|5|ionice|-c3|nginx", "", unix.SIGQUIT},
		{"", "nice|-n", "", unix.SIGTERM},
		{"", "stdbuf|--output=L|waitress-serve|app:app", "", unix.SIGINT},
		{"", "gosu|www-data|nginx", "", unix.SIGQUIT},
		{"", "gosu|nginx|gunicorn", "", unix.SIGTERM},
		{"", "gosu|nginx", "", unix.SIGTERM},
		{"", "su-exec|www:www|nginx", "", unix.SIGQUIT},
		{"", "setpriv|--reuid=33|--regid|33|--clear-groups|apache2|-DFOREGROUND", "", unix.SIGWINCH},
		{"", "nohup|nginx-exporter", "", unix.SIGTERM},
	} {
		r, _, _ := parsed(t, strings.Fields(c.flags)...)
		got, err := r.DrainSignalOf(strings.Split(c.command, "|"), c.executable)
		if err != nil || got.Signal != c.want || (got.Why != "") != (c.want != unix.SIGTERM && !strings.Contains(c.flags, "signal")) {
			t.Errorf("%s %s (%s): %v, %q, %v, want %v", c.flags, c.command, c.executable, got.Signal, got.Why, err, c.want)
		}
	}
}
