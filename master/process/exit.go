package process

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Exit is the end of a process, and what is known of its life.
type Exit struct {
	Status   unix.WaitStatus
	Err      error // why there is no status
	Asked    bool  // it was told to end, or has said that it would
	Ready    bool  // it was
	Listened bool
	// Left are processes that it has started and that live on, "pid (name)"; InBackground
	// that they look like the program itself, which has gone into the background.
	Left         []string
	InBackground bool
	Args         []string // it was started with
}

// Reason says how it ended; final that it would do so again, however often it is
// started.
func (e Exit) Reason() (text string, final bool) {
	switch {
	case e.Err != nil:
		return e.Err.Error(), false
	case e.Asked || !e.Status.Exited() || e.Status.ExitStatus() != 0:
		return linux.Ended(e.Status), false
	case len(e.Left) > 0 && e.InBackground:
		return fmt.Sprintf("went into the background (it exited with code 0, %s goes on): run it in the foreground (%s)", e.Left[0], e.foreground()), true
	case e.Ready:
		return "ended by itself (exit code 0)", false
	case e.Listened:
		return "ended by itself with exit code 0 before it was ready", true
	}
	return "ended by itself with exit code 0 before it listened: handoff runs programs that stay, not tasks that end", true
}

// Attrs are the attributes of the end in a log line.
func (e Exit) Attrs() []any {
	switch {
	case e.Err != nil:
		return nil
	case e.Status.Signaled():
		return []any{"killed_by", linux.SignalName(e.Status.Signal())}
	}
	return []any{"code", e.Status.ExitStatus()}
}

// foregrounds says how programs that go into the background are kept from it.
var foregrounds = [...]struct{ name, how string }{
	{"gunicorn", "gunicorn: leave out -D/--daemon"},
	{"nginx", "nginx: -g 'daemon off;'"},
	{"php-fpm", "php-fpm: -F/--nodaemonize"},
	{"apache2", "apache2: -DFOREGROUND"},
	{"apachectl", "apachectl: -DFOREGROUND"},
	{"httpd", "httpd: -DFOREGROUND"},
	{"uwsgi", "uwsgi: leave out --daemonize"},
	{"haproxy", "haproxy: -W or -db, without -D"},
	{"redis-server", "redis-server: --daemonize no"},
	{"valkey-server", "valkey-server: --daemonize no"},
	{"lighttpd", "lighttpd: -D"},
	{"puma", "puma: leave out -d/--daemon"},
	{"unicorn", "unicorn: leave out -D/--daemonize"},
	{"memcached", "memcached: leave out -d"},
	{"varnishd", "varnishd: -F"},
	{"caddy", "caddy: run, instead of start"},
	{"pm2", "without pm2: the program itself"},
}

// foreground is what to do about the program, by the words that it was started with.
func (e Exit) foreground() string {
	for _, arg := range e.Args {
		for _, word := range strings.Fields(arg) {
			name := strings.TrimRight(path.Base(word), "0123456789.") // php-fpm8.2
			for _, f := range foregrounds {
				if name == strings.TrimRight(f.name, "0123456789.") {
					return f.how
				}
			}
		}
	}
	return "leave out its option for a daemon, &, nohup and setsid"
}
