package process

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"handoff/internal/linux"
)

// Command is a command line that depends on the file system. It is resolved only at a
// reload, so that a switched link or an edited environment file takes effect then, and
// not by accident.
type Command struct {
	Args    []string // program and arguments; Args[0] is looked up in PATH
	Script  int      // index in Args of the script whose path is pinned too; 0: none
	Dir     string   // working directory, absolute; may be a link
	Env     []string // the whole environment, "K=V"; variables meant for handoff are removed
	EnvFile string   // more of it, a file of KEY=VALUE lines; relative to Dir
	// EnvUser is whose rights count for EnvFile; nil: handoff's own.
	EnvUser *linux.User
	Set     []string // "K=V" that overrides both
}

// Launch is a resolved Command: the same program with the same environment at each start,
// even if links change.
type Launch struct {
	Path string   // what is executed
	Args []string // as the program sees them, from its own name on
	Dir  string
	Env  []string
	// Unpinned are symlinks that the command goes through in a text, like that of sh -c:
	// what it means is not decided here, but at each start.
	Unpinned []string
}

// With returns a copy with a variable set.
func (l Launch) With(name, value string) Launch {
	l.Env = setenv(slices.Clone(l.Env), name, value)
	return l
}

// private are variables meant for handoff, not for its workers:
// service manager's protocols, and the channel of a Node program that may have
// started handoff itself.
var private = [...]string{
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
	"NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID",
	"WORKER_ID", "HANDOFF_GENERATION", "HANDOFF_WORKER",
	"HANDOFF_INSTANCE", "HANDOFF_SERVICE", "HANDOFF_UPSTREAM", "HANDOFF_PROGRAM", "HANDOFF_REKEPT", "FDSTORE",
	"HANDOFF_KEEPER", "HANDOFF_RESTARTS", "HANDOFF_REASON", "HANDOFF_BINARY_FD", "HANDOFF_PARENT", "HANDOFF_PARENT_RUNTIME_DIR", "TABLEFLIP_HAS_PARENT_7DIU3",
}

// Resolve resolves the command in the current file system. The error names what cannot be
// used, and never quotes an environment file, which may contain secrets.
func (c *Command) Resolve() (*Launch, error) {
	l := &Launch{Args: slices.Clone(c.Args)}
	var err error
	if l.Dir, err = filepath.EvalSymlinks(c.Dir); err != nil {
		return nil, fmt.Errorf("cannot use the working directory: %w", plain(err))
	}
	if l.Env, err = c.environ(l.Dir); err != nil {
		return nil, err
	}
	found, err := lookPath(c.Args[0], l.Dir, l.Env)
	if err != nil {
		return nil, err
	}
	// What is executed is pinned; what it is called stays, since programs
	// find themselves by it (a Python venv, a multi-call binary).
	if l.Path, err = filepath.EvalSymlinks(found); err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", c.Args[0], plain(err))
	}
	if err := c.pin(l, found); err != nil {
		return nil, err
	}
	return l, nil
}

// pin replaces what goes through symlinks by what they lead to. program is where Args[0]
// was found.
func (c *Command) pin(l *Launch, program string) (err error) {
	p := &pinner{dir: l.Dir, links: slices.Concat(linksOf(c.Dir), linksOf(filepath.Dir(program)))}
	l.Args[0] = p.path(l.Args[0], false)
	for i, arg := range l.Args {
		switch {
		case i == 0:
		case i == c.Script:
			if !filepath.IsAbs(arg) {
				arg = filepath.Join(l.Dir, arg)
			}
			p.links = append(p.links, linksOf(arg)...)
			if l.Args[i], err = filepath.EvalSymlinks(arg); err != nil {
				return fmt.Errorf("cannot run %s: %w", c.Args[c.Script], plain(err))
			}
		default:
			if l.Args[i] = p.arg(arg); l.Args[i] != arg {
				continue
			}
			if link := p.text(arg); link != "" && !slices.Contains(l.Unpinned, link) {
				l.Unpinned = append(l.Unpinned, link)
			}
		}
	}
	for i, kv := range l.Env {
		l.Env[i] = p.variable(kv)
	}
	return nil
}

// plain removes the system call from a path error.
func plain(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return fmt.Errorf("%s: %w", pe.Path, pe.Err)
	}
	return err
}

// lookPath finds the program as execvp would in the directory and with the PATH that
// it will have.
func lookPath(name, dir string, env []string) (string, error) {
	found := func(path string) (string, bool) {
		info, err := os.Stat(path)
		return path, err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
	}
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if _, err := os.Stat(name); err != nil {
			return "", fmt.Errorf("cannot run %w", plain(err))
		}
		path, ok := found(name)
		if !ok {
			return "", fmt.Errorf("cannot run %s: not an executable file", name)
		}
		return path, nil
	}
	for _, d := range filepath.SplitList(linux.Lookup(env, "PATH")) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if path, ok := found(filepath.Join(d, name)); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("cannot run %s: %w", name, exec.ErrNotFound)
}

func (c *Command) environ(dir string) ([]string, error) {
	env := Environ(c.Env)
	if c.EnvFile != "" {
		path := c.EnvFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		read, err := readEnvFile(path, c.EnvUser)
		if err != nil {
			// An error never quotes a line, which may be a secret.
			if pe, ok := err.(*fs.PathError); ok {
				return nil, fmt.Errorf("cannot read the environment file %w", plain(pe))
			}
			return nil, fmt.Errorf("cannot read the environment file %s: %w", path, err)
		}
		var list []string
		for _, k := range slices.Sorted(maps.Keys(read)) {
			list = append(list, k+"="+read[k])
		}
		env = override(env, list)
	}
	return setenv(override(env, c.Set), "PWD", dir), nil
}

// override puts variables in the place of those of the same names; of several of one name
// the last counts.
func override(env, over []string) []string {
	last := map[string]int{}
	for i, kv := range over {
		k, _, _ := strings.Cut(kv, "=")
		last[k] = i
	}
	env = slices.DeleteFunc(env, func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		_, ok := last[k]
		return ok
	})
	for i, kv := range over {
		if k, v, _ := strings.Cut(kv, "="); last[k] == i {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// readEnvFile reads a file of variables. Root follows another user's link by that user's
// rights: by root's, who may write to a folder of the program could have any file handed to
// it.
func readEnvFile(path string, as *linux.User) (vars map[string]string, err error) {
	open := linux.OpenOwnInput
	read := func() error {
		f, err := open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		text, err := linux.ReadAll(f, maxEnvFile)
		if err == nil {
			vars, err = parseEnvFile(text)
		}
		return err
	}
	if as == nil {
		err = read()
		var link *linux.ForeignLink
		if !errors.As(err, &link) {
			return vars, err
		}
		if as, err = userOf(link.UID); err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w (%w)", link, err)}
		}
	}
	open = linux.OpenInput
	err = linux.As(as, read)
	return vars, err
}

// userOf is a user with the groups that a login gives.
func userOf(uid int) (*linux.User, error) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	of := &linux.User{UID: uid}
	if of.GID, err = strconv.Atoi(u.Gid); err != nil {
		return nil, err
	}
	for _, g := range groups {
		if n, err := strconv.Atoi(g); err == nil {
			of.Groups = append(of.Groups, n)
		}
	}
	return of, nil
}

func setenv(env []string, k, v string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, k+"=") })
	return append(env, k+"="+v)
}

// Environ returns an environment without the variables meant for handoff.
func Environ(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(private[:], name)
	})
}
