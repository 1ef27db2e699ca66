package keeper

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/sdnotify"
)

// manager is the connection to the service manager that has started the keeper
// (sd_notify(3)). If it stores descriptors (FileDescriptorStoreMax, $FDSTORE), the whole
// store is also there. Names have a number appended, since the service manager adds where
// the keeper replaces: the highest number is valid, and the previous one is removed
// afterwards.
//
// It is not waited for: while it does not read, messages wait in a queue. It would hold up
// the master, and a stop.
type manager struct {
	socket  string         // NOTIFY_SOCKET; "" for none
	stores  bool           // it keeps descriptors
	numbers map[string]int // the number of each stored name
	deaf    func()         // is called when the first message waits; may be nil
	queue   chan letter    // nil: nothing has waited yet; closed by flush
	sent    chan struct{}  // closed when all of queue is sent
	waiting atomic.Int64   // letters that are not sent
}

// letter is a message that waits, with duplicates of its descriptors.
type letter struct {
	text string
	fds  []int
}

const (
	maxLetters = 512                   // what is more is dropped
	atOnce     = 20 * time.Millisecond // how long a service manager may take without making others wait
	lastLetter = time.Second           // for all that waits, at the end
)

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
	if m.waiting.Load() == 0 {
		err := sdnotify.SendWithin(atOnce, m.socket, text, fds...)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return // nothing can be done if it is not reachable
		}
		if m.deaf != nil {
			m.deaf()
		}
	}
	m.later(text, fds)
}

// later sends a message when those before it are sent.
func (m *manager) later(text string, fds []int) {
	if m.queue == nil {
		m.queue, m.sent = make(chan letter, maxLetters), make(chan struct{})
		go m.deliver() // ends with flush, or the process
	}
	l := letter{text: text}
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			l.drop()
			return
		}
		l.fds = append(l.fds, dup)
	}
	m.waiting.Add(1)
	select {
	case m.queue <- l:
	default:
		m.waiting.Add(-1)
		l.drop()
	}
}

func (m *manager) deliver() {
	defer close(m.sent)
	for l := range m.queue {
		sdnotify.Send(m.socket, l.text, l.fds...)
		l.drop()
		m.waiting.Add(-1)
	}
}

func (l letter) drop() {
	for _, fd := range l.fds {
		unix.Close(fd)
	}
}

// flush sends what waits, for a moment; nothing may be said afterwards.
func (m *manager) flush() {
	if m.queue == nil {
		return
	}
	close(m.queue)
	late := time.NewTimer(lastLetter)
	defer late.Stop()
	select {
	case <-m.sent:
	case <-late.C:
	}
}
