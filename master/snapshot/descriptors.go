package snapshot

import (
	"os"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/linux"
)

// Descriptors are the descriptors of a record, by name. A caller that takes one owns it;
// the owner closes the rest.
type Descriptors map[string]int

// DescriptorsOf makes Descriptors of those of a store. Of two with the same name it keeps
// the later one.
func DescriptorsOf(named []cmsg.Named) Descriptors {
	d := Descriptors{}
	for _, n := range named {
		if old, twice := d[n.Name]; twice {
			unix.Close(old)
		}
		d[n.Name] = n.FD
	}
	return d
}

// Take returns a descriptor, -1 if there is none.
func (d Descriptors) Take(name string) int {
	fd, ok := d[name]
	if !ok {
		return -1
	}
	delete(d, name)
	return fd
}

// File is Take as a file, nil if there is none; in Go's poller, where it can be.
func (d Descriptors) File(name string) *os.File {
	fd := d.Take(name)
	if fd < 0 {
		return nil
	}
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// Pidfd is Take as the pidfd of a process, nil if there is none.
func (d Descriptors) Pidfd(pid int, name string) (*linux.Pidfd, error) {
	fd := d.Take(name)
	if fd < 0 {
		return nil, nil
	}
	return linux.NewPidfd(pid, fd)
}
