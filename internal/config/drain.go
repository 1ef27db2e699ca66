package config

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// AutoSignal means the drain signal of the program, by the table of known programs.
const AutoSignal = "auto"

// DrainSignal is what tells a program to drain.
type DrainSignal struct {
	Signal unix.Signal
	// Why it is not the usual SIGTERM, for people: what SIGTERM does to the program; "":
	// it is, or the user has named it.
	Why string
	// Env are variables ("K=V") without which the program does not finish its requests at
	// the signal. A worker that already has one keeps its own value.
	Env []string
}

// Name is the signal's, as kill(1) has it.
func (d DrainSignal) Name() string { return strings.TrimPrefix(unix.SignalName(d.Signal), "SIG") }

// drains are programs that do not drain on SIGTERM. Each was tried (docs/programs.md).
var drains = []struct {
	names  []string // of the executable, or of the Python module, as path.Match has them
	signal unix.Signal
	why    string
	env    []string
}{
	{[]string{"nginx", "nginx-debug", "openresty"}, unix.SIGQUIT, "at SIGTERM nginx drops the requests that it has", nil},
	{[]string{"php-fpm", "php-fpm[0-9]*"}, unix.SIGQUIT, "at SIGTERM php-fpm drops the requests that it has, at SIGQUIT it finishes them within its process_control_timeout", nil},
	{[]string{"apache2", "httpd", "apache2ctl", "apachectl", "apache2-foreground", "httpd-foreground"}, unix.SIGWINCH, "at SIGTERM Apache drops the requests that it has", nil},
	{[]string{"lighttpd"}, unix.SIGINT, "at SIGTERM lighttpd drops the requests that it has", nil},
	{[]string{"waitress", "waitress-serve"}, unix.SIGINT, "SIGTERM ends waitress at once, with the requests that it has", nil},
	{[]string{"unicorn", "unicorn_rails"}, unix.SIGQUIT, "at SIGTERM unicorn drops the requests that it has", nil},
	{[]string{"uwsgi", "uwsgi-core", "uwsgi_python*", "uwsgi-python*"}, unix.SIGINT, "at SIGTERM uWSGI restarts instead of exiting",
		// SIGINT drops the requests that it has, as every signal does that ends it. Its
		// options may be variables: with a master, and without one.
		[]string{"UWSGI_HOOK_MASTER_START=unix_signal:2 gracefully_kill_them_all", "UWSGI_HOOK_ACCEPTING1=unix_signal:2 gracefully_kill"}},
}

// DrainSignalOf returns the drain signal of a command line. executable is the path of
// what Program returns for it, without links; "": it is not known.
func (r *Run) DrainSignalOf(command []string, executable string) (DrainSignal, error) {
	if r.DrainSignal != AutoSignal {
		s, err := r.Signal()
		return DrainSignal{Signal: s}, err
	}
	if r.ContractOf(command) != "node" {
		known := identities(ProgramOf(command), executable)
		for _, d := range drains {
			for _, pattern := range d.names {
				if slices.ContainsFunc(known, func(name string) bool { ok, _ := path.Match(pattern, name); return ok }) {
					return DrainSignal{d.signal, d.why, d.env}, nil
				}
			}
		}
	}
	return DrainSignal{Signal: unix.SIGTERM}, nil
}

// Signal returns the drain signal that was named; 0: none, see DrainSignalOf.
func (r *Run) Signal() (unix.Signal, error) {
	if r.DrainSignal == AutoSignal {
		return 0, nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(r.DrainSignal), "SIG")
	if s := unix.SignalNum(name); s != 0 && s != unix.SIGKILL && s != unix.SIGSTOP {
		return s, nil
	}
	return 0, fmt.Errorf("invalid --drain-signal %q: want auto, or a name like TERM, INT, QUIT, USR1 or WINCH", r.DrainSignal)
}

// ProgramOf returns the command line without what only starts the program: env, launchers
// like tini, and a shell that runs one command or ends with an exec. If it is not certain,
// the command is returned as it is.
func ProgramOf(command []string) []string {
	for range 4 { // env in a shell in env
		var next []string
		switch base := filepath.Base(command[0]); {
		case base == "env":
			next = afterEnv(command[1:])
		case slices.Contains([]string{"sh", "dash", "bash", "ash"}, base):
			next = afterShell(command)
		default:
			next = afterLauncher(base, command[1:])
		}
		if len(next) == 0 {
			break
		}
		command = next
	}
	return command
}

// afterEnv skips env's options and variables; nil: there are unknown options.
func afterEnv(args []string) []string {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-i" || a == "-" || a == "--" || a == "--ignore-environment" || strings.HasPrefix(a, "--unset=") || strings.HasPrefix(a, "--chdir="):
		case a == "-u" || a == "-C":
			i++
		case strings.HasPrefix(a, "-"):
			return nil
		case !strings.Contains(a, "="):
			return args[i:]
		}
	}
	return nil
}

// afterShell returns the program that `sh -c TEXT` ends up as: the only command of TEXT, or
// the one that it execs at the end; nil: neither.
func afterShell(command []string) []string {
	i := slices.IndexFunc(command[1:], func(a string) bool { return !strings.HasPrefix(a, "-") }) + 1
	if i < 2 || !strings.HasSuffix(command[i-1], "c") {
		return nil
	}
	words, several := lastCommand(command[i])
	execs := false
	for len(words) > 0 && (words[0] == "exec" || strings.Contains(words[0], "=")) {
		execs = execs || words[0] == "exec"
		words = words[1:]
	}
	if several && !execs || len(words) > 0 && strings.HasPrefix(words[0], "-") {
		return nil // the shell stays, and may do more
	}
	return words
}

// lastCommand returns the words of the last command of a shell's text, and whether others
// come before it; nil: the text has more than words, quotes and command separators.
func lastCommand(text string) (words []string, several bool) {
	var word strings.Builder
	var quote rune
	within, parted := false, false
	end := func() {
		if within {
			if parted && len(words) > 0 {
				words, several = nil, true
			}
			words = append(words, word.String())
			parted = false
		}
		word.Reset()
		within = false
	}
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, within = c, true
		case c == ' ' || c == '\t':
			end()
		case c == ';' || c == '&' || c == '\n':
			end()
			parted = true
		case strings.ContainsRune("|()<>`\\", c):
			return nil, false
		default:
			word.WriteRune(c)
			within = true
		}
	}
	if end(); quote != 0 {
		return nil, false
	}
	return words, several
}

// identities are the names that a program may be known by: the one it is called by, that
// of its file, and where it is an interpreter the module's or the script's.
func identities(command []string, executable string) []string {
	known := []string{filepath.Base(command[0])}
	if executable != "" {
		name := filepath.Base(executable)
		if name == "busybox" || name == "toybox" {
			return []string{name} // many programs under one name: its httpd is not Apache's
		}
		known = append(known, name)
	}
	if !slices.ContainsFunc(known, func(name string) bool { return strings.HasPrefix(name, "python") || strings.HasPrefix(name, "pypy") }) {
		return known
	}
	for i := 1; i < len(command); i++ {
		switch a := command[i]; {
		case a == "-m" && i+1 < len(command):
			return append(known, command[i+1])
		case a == "-W" || a == "-X":
			i++
		case a == "-c":
			return known
		case !strings.HasPrefix(a, "-"):
			return append(known, filepath.Base(a))
		}
	}
	return known
}
