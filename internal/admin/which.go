package admin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/internal/api"
)

// Which returns the client of the service that a command means: by name, by the pid that
// its user knows, by its folder, or, without a word, the one of this user. Of several, it
// is then the one whose folder is the current directory. Who is not unambiguous is
// [ErrWhich], with the names.
func Which(word string) (*Client, error) {
	if word != "" {
		if CheckName(word) == nil && len(sockets(word)) > 0 {
			return Find(word)
		}
		if pid, err := strconv.Atoi(word); err == nil {
			return theOnly(word, func(c *Client) bool {
				s, err := c.Within(whichWithin).Status()
				return err == nil && s.PID == pid
			})
		}
		if !strings.ContainsRune(word, '/') && strings.Trim(word, ".") != "" {
			return Find(word)
		}
		at, err := folderOf(word)
		if err != nil {
			return nil, err
		}
		return theOnly(word, at.runs)
	}
	client, err := Find("")
	if !errors.Is(err, ErrWhich) {
		return client, err
	}
	at, ferr := folderOf(".")
	if ferr != nil {
		return nil, err
	}
	here, herr := theOnly(".", at.runs)
	switch {
	case herr == nil:
		return here, nil
	case errors.Is(herr, ErrWhich):
		return nil, herr
	}
	return nil, err
}

// whichWithin is how long a service may take to say what it is, where several are asked.
const whichWithin = 3 * time.Second

// theOnly returns the only service that answers and is what is meant.
func theOnly(word string, is func(*Client) bool) (*Client, error) {
	var found []*Client
	var names []string
	for _, name := range Names() {
		c, err := Find(name)
		if err == nil && is(c) {
			found, names = append(found, c.Within(Patience)), append(names, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: no service with the name, pid or folder %q responds", ErrNotRunning, word)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w in this folder; choose one: %s", ErrWhich, strings.Join(names, ", "))
}

// folder is one that services may run in.
type folder struct {
	path  string // resolved
	owner int
}

func folderOf(path string) (f folder, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return f, err
	}
	if f.path, err = filepath.EvalSymlinks(path); err != nil {
		return f, err
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return f, err
	}
	if !info.IsDir() {
		return f, &os.PathError{Op: "choose a service by", Path: path, Err: syscall.ENOTDIR}
	}
	f.owner, _ = owner(info)
	return f, nil
}

// runs reports whether a service was started in this folder, has its configuration there,
// or its workers. Root is answered by other users as well, who could claim any folder: only
// its owner, root and this user are believed.
func (f folder) runs(c *Client) bool {
	if !slices.Contains([]int{0, os.Geteuid(), f.owner}, c.UID) {
		return false
	}
	var at api.Config
	if c.Within(whichWithin).Get(api.ConfigPath, &at) != nil {
		return false
	}
	claims := []string{at.Folder, at.Dir}
	if at.File != "" {
		claims = append(claims, filepath.Dir(at.File))
	}
	return slices.ContainsFunc(claims, func(path string) bool {
		real, err := filepath.EvalSymlinks(path)
		return path != "" && err == nil && real == f.path
	})
}

// FreeName is the first of NAME, NAME-2, NAME-3 … that no service of this user listens by.
// Nobody is asked: a service that hangs is one, too.
func FreeName(name string) string {
	if CheckName(name) != nil {
		return name // refused where it is used
	}
	free := name
	for n := 2; inUse(free); n++ {
		free = numbered(name, n)
	}
	return free
}

// inUse reports whether a service of this user listens by a name.
func inUse(name string) bool {
	return slices.ContainsFunc(sockets(name), func(s controlSocket) bool {
		real, err := filepath.EvalSymlinks(s.path) // of one that is part of another program
		if err != nil {
			return false
		}
		info, err := os.Stat(real)
		if err != nil {
			return false
		}
		of, _ := owner(info)
		return of == os.Geteuid() && isBound(real)
	})
}

// PIDOf is the pid that the user of a service knows; 0: it does not answer.
func PIDOf(name string) int {
	c, err := Find(name)
	if err != nil {
		return 0
	}
	defer c.http.CloseIdleConnections()
	s, err := c.Within(whichWithin).Status()
	if err != nil {
		return 0
	}
	return s.PID
}

// numbered is the n-th name of its kind, at most as long as a name can be.
func numbered(name string, n int) string {
	end := "-" + strconv.Itoa(n)
	return name[:min(len(name), maxName-len(end))] + end
}
