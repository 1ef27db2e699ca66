package keeper

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/sdnotify"
)

// manager is the connection to the service manager that has started the keeper
// (sd_notify(3)). If it stores descriptors (FileDescriptorStoreMax, $FDSTORE), the whole
// store is also there. Names have a number appended, since the service manager adds where
// the keeper replaces: the highest number is valid, and the previous one is removed
// afterwards.
type manager struct {
	socket  string         // NOTIFY_SOCKET; "" for none
	stores  bool           // it keeps descriptors
	numbers map[string]int // the number of each stored name
}

// KeptPrefix begins the names of a previous keeper's store.
const KeptPrefix = "keep-"

// Split separates the store of a previous keeper, with its original names, from sockets
// that a service manager has passed. Of duplicates it closes all but the newest.
func (m *manager) split(all []cmsg.Named) (kept []cmsg.Named) {
	at := map[string]int{}
	for _, n := range all {
		name, number, _ := strings.Cut(n.Name, ".")
		last, _ := strconv.ParseUint(number, 10, 31) // which a service manager gives back as it was given
		seq := int(last)
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
	sdnotify.Send(m.socket, text, fds...) // nothing can be done if it is not reachable
}
