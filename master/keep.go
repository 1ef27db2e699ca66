package master

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/handoff"
	"handoff/master/fleet"
)

// keep is the way to the keeper (internal/keeper has the dialogue). Without one
// nothing is kept. It may be used from any goroutine.
type keep struct {
	conn *handoff.Conn // nil: no keeper
	log  *slog.Logger
}

func dialKeeper(name string, log *slog.Logger) (keep, error) {
	if name == "" {
		return keep{log: log}, nil
	}
	c, err := handoff.DialNotify(name)
	if err != nil {
		return keep{log: log}, fmt.Errorf("cannot speak to the keeper: %w", err)
	}
	return keep{c, log}, nil
}

// keeperPatience is how long the keeper may take to read. It does nothing else,
// so that a longer wait means that it is stopped.
const keeperPatience = time.Second

// mute closes the way to a keeper that has died.
func (k keep) mute() {
	if k.conn != nil {
		k.conn.Close()
	}
}

func (k keep) say(text string, fds ...int) {
	if k.conn == nil {
		return
	}
	k.conn.SetWriteDeadline(time.Now().Add(keeperPatience))
	if err := k.conn.Write([]byte(text), fds...); err != nil {
		k.log.Error("Cannot speak to the keeper: "+err.Error()+"; what it does not hold is lost if this master dies", "event", "keeper.mute")
	}
}

// store has a duplicate of fd kept by that name, in the place of what has it.
func (k keep) store(name string, fd int) { k.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd) }

func (k keep) drop(name string) { k.say("FDSTOREREMOVE=1\nFDNAME=" + name) }

// flush waits until the keeper has heeded all that was said.
func (k keep) flush() {
	if k.conn == nil {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	k.say("BARRIER=1", int(w.Fd()))
	w.Close()
	r.SetReadDeadline(time.Now().Add(keeperPatience))
	r.Read(make([]byte, 1)) // its end
}

// Give asks the keeper for all that it holds, for a candidate whose master
// before has gone. The caller owns the descriptors.
func Give(keeper string) ([]handoff.Named, error) {
	k, err := dialKeeper(keeper, nil)
	if err != nil {
		return nil, err
	}
	if k.conn == nil {
		return nil, errors.New("cannot take over: there is no keeper")
	}
	defer k.conn.Close()
	ours, theirs, err := handoff.Pair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	err = k.conn.Write([]byte("X_GIVE=1"), int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot ask the keeper: %w", err)
	}
	var named []handoff.Named
	buf := make([]byte, 512)
	for {
		n, fds, err := ours.Read(buf)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			closeAll(fds)
			return named, fmt.Errorf("cannot take what the keeper holds: %w", err)
		}
		name := strings.TrimSuffix(string(buf[:n]), "\n")
		if name == "" {
			return named, nil
		}
		if len(fds) != 1 {
			closeAll(fds)
			return named, fmt.Errorf("the keeper has sent %d descriptors for %q", len(fds), name)
		}
		named = append(named, handoff.Named{Name: name, FD: fds[0]})
	}
}

// SayCandidate tells the keeper that this process may become the master.
func SayCandidate(keeper string) error {
	k, err := dialKeeper(keeper, nil)
	if err != nil || k.conn == nil {
		return err
	}
	defer k.conn.Close()
	return k.conn.Write([]byte("X_CANDIDATE=1"))
}

// The names of what is kept.
const stateName = "state"

func workerName(id fleet.ID, what string) string { return "w" + strconv.Itoa(int(id)) + "-" + what }

// What is kept of a worker.
const (
	keptPID    = "pid"
	keptPair   = "pair"
	keptStderr = "stderr"
	keptNotify = "notify"
	keptSeat   = "seat"
	keptBinder = "binder"
)

var keptOfWorker = [...]string{keptPID, keptPair, keptStderr, keptNotify, keptSeat, keptBinder}

func socketName(inode uint64) string { return "s" + strconv.FormatUint(inode, 10) }

func sharedName(key string) string { return "x" + key }

func (k keep) storeSocket(s *handoff.Socket) { k.store(socketName(s.Inode()), s.FD()) }

func (k keep) dropSocket(s *handoff.Socket) { k.drop(socketName(s.Inode())) }

// storeFile keeps what a file or a socket of Go's stands for.
func (k keep) storeFile(name string, f syscall.Conn) {
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { k.store(name, int(fd)) })
	}
	if err != nil {
		k.log.Error("Cannot keep "+name+": "+err.Error(), "event", "keeper.mute")
	}
}
