package master

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
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
