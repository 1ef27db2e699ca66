package bindintercept

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Op is what an intercepted call does.
type Op int

// The calls. Unlink and Rename are about the names of files; Connect is to one.
const (
	Bind Op = iota
	Listen
	Unlink
	Rename
	Connect
)

// Place is where the file of a unix socket is: its name, in a folder that is known by its
// inode, whatever path leads there. Of an abstract name, which begins with a zero byte, the
// folder is the network namespace. The zero Place is none.
type Place struct {
	Dev, Ino uint64
	Name     string
}

// Abstract reports whether there is no file.
func (p Place) Abstract() bool { return len(p.Name) > 0 && p.Name[0] == 0 }

// File tells a file from another that has its name later. The zero one is none.
type File struct{ Dev, Ino uint64 }

// Spot is a name that a call is about.
type Spot struct {
	Place
	Path string // for people
	// File is the socket that has the name when the call comes; zero: none, or it is no socket.
	File File
	Free bool // nothing has the name
}

// nameArg is a name as a call has it: a folder's descriptor, and the address of a text.
type nameArg struct {
	folder int
	text   uint64
}

// namesAt is namesOf of the calls that each architecture has.
func namesAt(nr int32, a [6]uint64) (Op, []nameArg) {
	at := func(i int) nameArg { return nameArg{int(int32(a[i])), a[i+1]} }
	switch nr {
	case unix.SYS_UNLINKAT:
		return Unlink, []nameArg{at(0)}
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return Rename, []nameArg{at(0), at(2)}
	}
	return Bind, nil
}

// lookNames reads what an unlink or a rename is about; ok reports whether it is about a
// name of the service's. No folder is looked at for others.
func (c *Call) lookNames(args []nameArg) (ok bool, err error) {
	texts := make([]string, len(args))
	for i, a := range args {
		if texts[i], err = readText(c.PID, a.text); err != nil {
			return false, nil // the kernel's to refuse
		}
		_, name := splitPath(texts[i])
		ok = ok || c.l.names.has(name) || c.l.bound.has(name)
	}
	if c.Unheld = !ok; c.Unheld && (c.Op != Unlink || !c.l.names.areSeveral()) {
		return false, nil
	}
	if err = c.caller(); err != nil {
		return false, err
	}
	if c.Unheld {
		return c.lookUnheld(args[0].folder, texts[0])
	}
	for i, a := range args {
		spot, folder, err := c.resolve(a.folder, texts[i])
		if err != nil {
			return false, nil
		}
		c.keepFolder(folder)
		if i == 0 {
			c.Spot = spot
		} else {
			c.To = spot
		}
	}
	return true, nil
}

// lookConnect reads where a connect goes; ok reports whether it is to a name of the service's.
func (c *Call) lookConnect(addr, size uint64) (ok bool, err error) {
	text, err := readUnixAddress(c.PID, addr, size)
	if err != nil || text[0] == 0 {
		return false, nil
	}
	if _, name := splitPath(text); !c.l.names.has(name) {
		return false, nil
	}
	if err = c.caller(); err != nil {
		return false, err
	}
	socket, err := c.process.Getfd(c.FD)
	if err != nil {
		return false, nil // EBADF, says the kernel
	}
	defer unix.Close(socket)
	if typ := option(socket, unix.SOL_SOCKET, unix.SO_TYPE); option(socket, unix.SOL_SOCKET, unix.SO_DOMAIN) != unix.AF_UNIX || typ == unix.SOCK_DGRAM {
		return false, nil
	}
	spot, folder, err := c.resolve(unix.AT_FDCWD, text)
	if err != nil {
		return false, nil
	}
	c.keepFolder(folder)
	c.Spot = spot
	return true, nil
}

// splitPath returns the folder and the name in it; the name is empty where it cannot be
// one of a socket's file.
func splitPath(text string) (folder, name string) {
	i := strings.LastIndexByte(text, '/')
	folder, name = text[:i+1], text[i+1:]
	if name == "." || name == ".." {
		name = ""
	}
	return folder, name
}

const maxPath = 4096

// readText reads a path of a process. A page that is not there may follow the one that has
// the end of it.
func readText(pid int, at uint64) (string, error) {
	var b [maxPath]byte
	for n := 0; n < len(b); {
		size := min(len(b)-n, 256, maxPath-int((at+uint64(n))%maxPath))
		k, err := readMemory(pid, at+uint64(n), b[n:n+size])
		if err != nil {
			return "", err
		}
		if k <= 0 {
			return "", unix.EFAULT
		}
		if end := bytes.IndexByte(b[n:n+k], 0); end >= 0 {
			return string(b[:n+end]), nil
		}
		n += k
	}
	return "", unix.ENAMETOOLONG
}

// resolve finds the folder of a path as the thread sees it that called: from its root, its
// working directory or a descriptor of its. It returns the folder, which the caller closes.
// It may take as long as a file system likes.
func (c *Call) resolve(at int, text string) (s Spot, folder int, err error) {
	way, name := splitPath(text)
	if name == "" {
		return s, -1, unix.ENOENT
	}
	if folder, err = c.openFolder(at, way); err != nil {
		return s, -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(folder, &st); err != nil {
		unix.Close(folder)
		return s, -1, err
	}
	s.Place = Place{st.Dev, st.Ino, name}
	s.Path = text
	if dir, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(folder)); err == nil {
		s.Path = strings.TrimSuffix(dir, "/") + "/" + name
	}
	s.File, s.Free = fileAt(folder, name)
	return s, folder, nil
}

// fileAt returns the socket that has a name; free: nothing has it.
func fileAt(folder int, name string) (f File, free bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return f, err == unix.ENOENT
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return f, false
	}
	return File{st.Dev, st.Ino}, false
}

const openFolderFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

func (c *Call) openFolder(at int, way string) (int, error) {
	from, walk, err := c.startOf(at, way)
	if err != nil {
		return -1, err
	}
	defer unix.Close(from)
	return walk()
}

// startOf opens where a path begins, and returns what opens the folder that it leads to.
func (c *Call) startOf(at int, way string) (from int, walk func() (int, error), err error) {
	proc := "/proc/" + strconv.Itoa(c.PID)
	way, own := ownDescriptor(way, c.TGID)
	start := proc + "/cwd"
	switch {
	case own != "":
		start = own
	case strings.HasPrefix(way, "/"):
		start = proc + "/root"
	case at != unix.AT_FDCWD:
		start = proc + "/fd/" + strconv.Itoa(at)
	}
	from, err = unix.Open(start, openFolderFlags, 0)
	rest := strings.TrimLeft(way, "/")
	return from, func() (int, error) {
		switch {
		case rest == "":
			return unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 3)
		case start == proc+"/root":
			return unix.Openat2(from, rest, &unix.OpenHow{Flags: openFolderFlags, Resolve: unix.RESOLVE_IN_ROOT})
		}
		// Absolute links on a relative path lead from handoff's own root: a program in another
		// one has them seldom, and then the folder is another, and nothing of the service's.
		return unix.Openat(from, rest, openFolderFlags, 0)
	}, err
}

// ownDescriptor returns the rest of a path that leads over a descriptor of the process's own
// (a bind to a path of more than 107 bytes does), and that descriptor; "": it does not.
func ownDescriptor(way string, pid int) (rest, start string) {
	for _, prefix := range []string{"/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/"} {
		tail, ok := strings.CutPrefix(way, prefix)
		if !ok {
			continue
		}
		n, rest, _ := strings.Cut(tail, "/")
		if _, err := strconv.ParseUint(n, 10, 31); err == nil {
			return rest, "/proc/" + strconv.Itoa(pid) + "/fd/" + n
		}
	}
	return way, ""
}

// keepFolder keeps a folder that was found until the call has its answer.
func (c *Call) keepFolder(fd int) { c.folders = append(c.folders, fd) }

// lookUnix reads what a bind or listen of a unix socket is about; ok reports whether it may be
// held: not where the kernel refuses the call, or chooses the name.
func (c *Call) lookUnix(socket int, addr, size uint64) (ok bool, err error) {
	c.options = optionsOf(socket)
	text, listens := "", option(socket, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) == 1
	if sa, err := unix.Getsockname(socket); err == nil {
		if sa, ok := sa.(*unix.SockaddrUnix); ok && sa.Name != "@" { // which stands for no name
			text = sa.Name
		}
	}
	if c.Listen {
		c.Listens = listens
		if _, err := unix.Getpeername(socket); err == nil {
			return false, nil // EINVAL, says the kernel
		}
		return true, c.lookBound(socket, text)
	}
	if text != "" || listens {
		return false, nil // EINVAL, says the kernel
	}
	if text, err = readUnixAddress(c.PID, addr, size); err != nil {
		return false, nil
	}
	spot, folder, err := c.unixSpot(socket, text)
	if err != nil {
		return false, nil
	}
	if folder >= 0 {
		c.keepFolder(folder)
		c.Made = c.made(socket, folder)
	}
	c.Spot, c.text = spot, text
	return true, nil
}

// unixSpot is where an address is. The folder may be -1: none.
func (c *Call) unixSpot(socket int, text string) (s Spot, folder int, err error) {
	if text[0] != 0 {
		return c.resolve(unix.AT_FDCWD, text)
	}
	cookie, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		cookie = 0 // before Linux 5.14
	}
	s.Place, s.Path = Place{Ino: cookie, Name: text}, "@"+text[1:]
	return s, -1, nil
}

// lookBound finds the name of a socket that is to listen: where it was bound, or has been
// renamed to since, else what the kernel knows of it.
func (c *Call) lookBound(socket int, text string) error {
	if text == "" {
		return nil // no name, whatever it has tried: it may get a held one
	}
	if b := c.l.bound.of(c.Inode); b != nil {
		c.Spot, c.Made = b.spot, b.made
		if b.folder < 0 {
			return nil
		}
		c.Spot.File, c.Spot.Free = fileAt(b.folder, b.spot.Name)
		if fd, err := unix.FcntlInt(uintptr(b.folder), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			c.keepFolder(fd)
		}
		return nil
	}
	if text[0] == '@' { // as package unix gives an abstract name
		text = "\x00" + text[1:]
	}
	spot, folder, err := c.unixSpot(socket, text)
	if err != nil {
		return nil // its folder is gone: nobody reaches it
	}
	if folder >= 0 {
		c.keepFolder(folder)
		c.Made = c.made(socket, folder)
	}
	c.Spot = spot
	return nil
}

// RemoveSource ends a rename as if it had been executed and its target had stayed what it
// was: the source is removed, with the rights of the thread that called. It answers in a
// goroutine, since that may take as long as the file system likes.
func (c *Call) RemoveSource() { c.answerWith(c.removeSource) }

// LinkInstead ends a rename as if it had been executed, but that the source stays, too.
func (c *Call) LinkInstead() { c.answerWith(c.linkInstead) }

func (c *Call) answerWith(f func() error) {
	go func() {
		err := f()
		errno := unix.EIO
		if err == nil {
			errno = 0
		} else {
			errors.As(err, &errno)
		}
		c.Answer(errno)
	}()
}

// linkInstead gives the source a second name, and that the target's: link(2) replaces nothing.
func (c *Call) linkInstead() error {
	if len(c.folders) < 2 {
		return unix.EBADF
	}
	from, to, between := c.folders[0], c.folders[1], c.Spot.Name+".handoff~"
	return c.as(func() error {
		if err := unix.Linkat(from, c.Spot.Name, to, between, 0); err != nil {
			return err
		}
		defer unix.Unlinkat(to, between, 0) // a rename to another name of the same file does nothing
		return unix.Renameat(to, between, to, c.To.Name)
	})
}

func (c *Call) removeSource() error {
	if len(c.folders) == 0 {
		return unix.EBADF
	}
	return c.as(func() error { return unix.Unlinkat(c.folders[0], c.Spot.Name, 0) })
}
