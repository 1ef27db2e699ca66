package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ParentDirVariable is the HANDOFF_RUNTIME_DIR of the program that has started an embedded
// handoff, which has a folder of its own.
const ParentDirVariable = "HANDOFF_PARENT_RUNTIME_DIR"

// Register has clients find an embedded handoff, whose control socket is in a folder of
// its own: by a link where this user's other services have theirs. Where another one
// answers by that name, the pid is added. A master that follows another finds its link
// there. remove takes it away.
func Register(name string) (remove func(), err error) {
	dir, err := filepath.Abs(os.Getenv(DirVariable))
	if err != nil || os.Getenv(DirVariable) == "" {
		return func() {}, err
	}
	usual, err := usable(places(parentEnv, os.Geteuid()))
	if err != nil || usual == dir {
		return func() {}, err
	}
	sweepLinks(usual)
	link, err := registered(usual, name, filepath.Join(dir, name+".sock"))
	if err != nil {
		return func() {}, fmt.Errorf("cannot register the service: %w", err)
	}
	return func() { os.Remove(link) }, nil
}

// parentEnv is the environment of the program that has started this one. The runtime
// directory of a unit of its own is none of handoff's, where clients would look.
func parentEnv(name string) string {
	switch name {
	case DirVariable:
		return os.Getenv(ParentDirVariable)
	case "RUNTIME_DIRECTORY":
		if d := os.Getenv(name); !strings.HasPrefix(d, sharedDir+"/") {
			return ""
		}
	}
	return os.Getenv(name)
}

// registered makes a link to a socket, or finds the one that is there.
func registered(dir, name, socket string) (link string, err error) {
	all, _ := filepath.Glob(filepath.Join(dir, name+"*.sock"))
	for _, link := range all {
		if to, _ := os.Readlink(link); to == socket {
			return link, nil
		}
	}
	for _, n := range []string{name, name + "-" + strconv.Itoa(os.Getpid())} {
		link = filepath.Join(dir, n+".sock")
		if c, derr := (controlSocket{path: link, owner: -1}).dial(context.Background()); derr == nil {
			c.Close()
			err = fmt.Errorf("%s is in use", link)
			continue
		}
		os.Remove(link) // nobody has it any more
		if err = os.Symlink(socket, link); err == nil {
			return link, nil
		}
	}
	return "", err
}

// sweepLinks removes links of services that have been killed.
func sweepLinks(dir string) {
	all, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, link := range all {
		info, err := os.Lstat(link)
		if err != nil || info.Mode().Type() != fs.ModeSymlink {
			continue
		}
		c, err := controlSocket{path: link, owner: -1}.dial(context.Background())
		switch {
		case err == nil:
			c.Close()
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED) && time.Since(info.ModTime()) > betweenMasters:
			os.Remove(link)
		}
	}
}
