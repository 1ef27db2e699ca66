package keeper

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/sdnotify"
)

// above is the service manager that has started the keeper, seen from below: an
// ordinary service (sd_notify(3)), and where that one stores descriptors
// (FileDescriptorStoreMax, $FDSTORE), one whose whole store is there too. A name
// is stored with a number behind it, since the service manager adds where the
// keeper replaces: the highest number counts, and the one before is removed after.
type above struct {
	socket string         // NOTIFY_SOCKET; "" for none
	stores bool           // it keeps descriptors
	seqs   map[string]int // the number behind each name that it keeps
}

// KeptPrefix begins the names of what a keeper before has held.
const KeptPrefix = "keep-"

// Split tells what a keeper before has held, by the names that it held it by, from
// sockets that a service manager has passed. What is there twice is closed but
// for the newest.
func (a *above) split(all []cmsg.Named) (kept []cmsg.Named) {
	at := map[string]int{}
	for _, n := range all {
		name, number, _ := strings.Cut(n.Name, ".")
		seq, _ := strconv.Atoi(number)
		if i, twice := at[name]; !twice {
			at[name] = len(kept)
			kept = append(kept, cmsg.Named{Name: name, FD: n.FD})
		} else if old := a.seqs[name]; seq > old {
			a.remove(name, old)
			unix.Close(kept[i].FD)
			kept[i].FD = n.FD
		} else {
			a.remove(name, seq)
			unix.Close(n.FD)
			continue
		}
		a.seqs[name] = seq
	}
	return kept
}

func (a *above) store(name string, fd int) {
	if !a.stores {
		return
	}
	seq, twice := a.seqs[name]
	a.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+KeptPrefix+name+"."+strconv.Itoa(seq+1), fd)
	if a.seqs[name] = seq + 1; twice {
		a.remove(name, seq)
	}
}

func (a *above) drop(name string) {
	if seq, ok := a.seqs[name]; ok && a.stores {
		delete(a.seqs, name)
		a.remove(name, seq)
	}
}

func (a *above) dropAll() {
	for name := range a.seqs {
		a.drop(name)
	}
}

func (a *above) remove(name string, seq int) {
	a.say("FDSTOREREMOVE=1\nFDNAME=" + KeptPrefix + name + "." + strconv.Itoa(seq))
}

func (a *above) say(text string, fds ...int) {
	if a.socket == "" {
		return
	}
	sdnotify.Send(a.socket, text, fds...) // whom it does not reach it cannot help
}

// end ends the master of the keeper before: what it does from now on nobody
// keeps. It takes the descriptor over.
func end(pidfd int) {
	defer unix.Close(pidfd)
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(endPatience.Milliseconds()))
}

const endPatience = 10 * time.Second

// MasterName is what the pidfd of a master is kept by, for a keeper that comes
// after its own: it ends it.
const MasterName = "master"

// openSelf opens the binary of this process, which an upgrade may replace.
func openSelf() *os.File {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	return f
}
