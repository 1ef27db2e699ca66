package bindintercept

import (
	"slices"

	"golang.org/x/sys/unix"
)

// bound has where the unix sockets of a worker were bound, for the listen that follows:
// the kernel knows a text alone, and a working directory changes, a file is renamed. What
// the calls came to is not known: a name is looked at again when it is needed.
type bound struct{ list []boundName }

type boundName struct {
	inode  uint64
	spot   Spot
	folder int // open; -1: abstract
	made   Access
}

// maxBound is how many are remembered.
const maxBound = 64

func (b *bound) of(inode uint64) *boundName {
	for i := range b.list {
		if b.list[i].inode == inode {
			return &b.list[i]
		}
	}
	return nil
}

func (b *bound) has(name string) bool {
	return slices.ContainsFunc(b.list, func(n boundName) bool { return n.spot.Name == name })
}

// note records what a call that was looked at changes, if it is done.
func (b *bound) note(c *Call) {
	switch {
	case c.Op == Rename:
		for i := range b.list {
			if n := &b.list[i]; n.spot.Place == c.Spot.Place {
				b.replace(n, c.To, c.folders[1])
			}
		}
	case c.Kind == Unix && c.Op == Bind && !c.Listen:
		folder := -1
		if len(c.folders) > 0 {
			folder = c.folders[0]
		}
		if n := b.of(c.Inode); n != nil {
			b.replace(n, c.Spot, folder)
			n.made = c.Made
			return
		}
		if len(b.list) >= maxBound {
			b.replace(&b.list[0], Spot{}, -1)
			b.list = b.list[1:]
		}
		b.list = append(b.list, boundName{inode: c.Inode, folder: -1, made: c.Made})
		b.replace(&b.list[len(b.list)-1], c.Spot, folder)
	}
}

func (b *bound) replace(n *boundName, spot Spot, folder int) {
	if n.folder >= 0 {
		unix.Close(n.folder)
	}
	n.spot, n.folder = spot, -1
	if folder >= 0 {
		if fd, err := unix.FcntlInt(uintptr(folder), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			n.folder = fd
		}
	}
}

func (b *bound) clear() {
	for _, n := range b.list {
		if n.folder >= 0 {
			unix.Close(n.folder)
		}
	}
	b.list = nil
}
