package keeper

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/sdnotify"
)

// manager is the service manager that has started the keeper, seen from below: an
// ordinary service (sd_notify(3)), and where that one stores descriptors
// (FileDescriptorStoreMax, $FDSTORE), one whose whole store is there too. A name
// is stored with a number behind it, since the service manager adds where the
// keeper replaces: the highest number counts, and the one before is removed after.
type manager struct {
	socket  string         // NOTIFY_SOCKET; "" for none
	stores  bool           // it keeps descriptors
	numbers map[string]int // the number behind each name that it keeps
}

// KeptPrefix begins the names of what a keeper before has held.
const KeptPrefix = "keep-"

// Split tells what a keeper before has held, by the names that it held it by, from
// sockets that a service manager has passed. What is there twice is closed but
// for the newest.
func (m *manager) split(all []cmsg.Named) (kept []cmsg.Named) {
	at := map[string]int{}
	for _, n := range all {
		name, number, _ := strings.Cut(n.Name, ".")
		seq, _ := strconv.Atoi(number)
		if i, twice := at[name]; !twice {
			at[name] = len(kept)
			kept = append(kept, cmsg.Named{Name: name, FD: n.FD})
		} else if old := m.numbers[name]; seq > old {
			m.forget(name, old)
			unix.Close(kept[i].FD)
			kept[i].FD = n.FD
		} else {
			m.forget(name, seq)
			unix.Close(n.FD)
			continue
		}
		m.numbers[name] = seq
	}
	return kept
}

func (m *manager) Store(name string, fd int) {
	if !m.stores {
		return
	}
	seq, twice := m.numbers[name]
	m.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+KeptPrefix+name+"."+strconv.Itoa(seq+1), fd)
	if m.numbers[name] = seq + 1; twice {
		m.forget(name, seq)
	}
}

func (m *manager) Remove(name string) {
	if seq, ok := m.numbers[name]; ok && m.stores {
		delete(m.numbers, name)
		m.forget(name, seq)
	}
}

func (m *manager) removeAll() {
	for name := range m.numbers {
		m.Remove(name)
	}
}

func (m *manager) forget(name string, seq int) {
	m.say("FDSTOREREMOVE=1\nFDNAME=" + KeptPrefix + name + "." + strconv.Itoa(seq))
}

func (m *manager) say(text string, fds ...int) {
	if m.socket == "" {
		return
	}
	sdnotify.Send(m.socket, text, fds...) // whom it does not reach it cannot help
}
