package master

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/master/fleet"
)

// keep is the way to the keeper (internal/keeper has the dialogue). Without one
// nothing is kept. It may be used from any goroutine.
type keep struct {
	conn *handoff.Conn // nil: no keeper
	log  *slog.Logger
	// mute: the keeper has not read what it was told, and is not told any more, so
	// that a keeper that is stopped (Ctrl-Z) keeps nobody waiting. When it answers
	// again it is told everything again, see Master.retell.
	mute *atomic.Bool
}

func dialKeeper(name string, log *slog.Logger) (keep, error) {
	k := keep{log: log, mute: new(atomic.Bool)}
	if name == "" {
		return k, nil
	}
	c, err := handoff.DialNotify(name)
	if err != nil {
		return k, fmt.Errorf("cannot speak to the keeper: %w", err)
	}
	k.conn = c
	return k, nil
}

// keeperPatience is how long the keeper may take to read. It does nothing else,
// so that a longer wait means that it is stopped.
const keeperPatience = time.Second

var errMute = errors.New("the keeper does not answer")

// end closes the way to a keeper that has died.
func (k keep) end() {
	if k.conn != nil {
		k.conn.Close()
	}
}

func (k keep) say(text string, fds ...int) error {
	if k.conn == nil {
		return nil
	}
	if k.mute.Load() {
		return errMute
	}
	err := k.tell(keeperPatience, text, fds...)
	if err != nil && k.mute.CompareAndSwap(false, true) {
		k.log.Error("The keeper does not answer ("+err.Error()+"): what changes from now on it does not hold, until it does", "event", "keeper.mute")
	}
	return err
}

func (k keep) tell(patience time.Duration, text string, fds ...int) error {
	k.conn.SetWriteDeadline(time.Now().Add(patience))
	return k.conn.Write([]byte(text), fds...)
}

// store has a duplicate of fd kept by that name, in the place of what has it.
func (k keep) store(name string, fd int) error {
	return k.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
}

func (k keep) drop(name string) { k.say("FDSTOREREMOVE=1\nFDNAME=" + name) }

// probeEvery is how often a mute keeper is tried.
const probeEvery = time.Second

// probeKeeper tries a mute keeper, and tells it everything if it answers.
func (m *Master) probeKeeper(now time.Time) {
	if m.keep.conn == nil || !m.keep.mute.Load() || now.Before(m.probeAt) {
		return
	}
	m.probeAt = now.Add(probeEvery)
	if m.keep.tell(probePatience, "X_PROBE=1") != nil {
		return
	}
	m.keep.mute.Store(false)
	m.retell()
	if !m.keep.mute.Load() {
		m.log.Info("The keeper answers again, and holds everything", "event", "keeper.answers")
	}
}

const probePatience = 10 * time.Millisecond

// retell has the keeper hold what there is, and nothing else. What it holds
// meanwhile is at least what it held before.
func (m *Master) retell() {
	named, err := m.kept()
	m.trouble(err)
	m.keep.say("X_BEGIN=1")
	for _, n := range named {
		m.keep.store(n.Name, n.FD)
		unix.Close(n.FD)
	}
	m.keep.say("X_END=1")
	m.saved = nil // and the record once more, with what has changed meanwhile
	m.dirty = true
}

// flush waits until the keeper has heeded all that was said.
func (k keep) flush() {
	if k.conn == nil || k.mute.Load() {
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
func Give(keeper string) ([]handoff.Named, error) { return give(keeper, "") }

// GiveProgram asks the keeper for what [Live.Program] was last; nil if there was
// none.
func GiveProgram(keeper string) ([]byte, error) {
	named, err := give(keeper, programName)
	var text []byte
	for _, n := range named {
		f := os.NewFile(uintptr(n.FD), n.Name)
		if err == nil {
			text, err = io.ReadAll(io.NewSectionReader(f, 0, recordMost))
		}
		f.Close()
	}
	return text, err
}

func give(keeper, only string) ([]handoff.Named, error) {
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
	text := "X_GIVE=1"
	if only != "" {
		text += "\nFDNAME=" + only
	}
	err = k.conn.Write([]byte(text), int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot ask the keeper: %w", err)
	}
	ours.SetReadDeadline(time.Now().Add(givePatience))
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

// givePatience is how long the keeper may take to give everything.
const givePatience = 10 * time.Second

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
const (
	stateName   = "state"
	programName = "program"
)

func workerName(id fleet.ID, what string) string { return "w" + strconv.Itoa(int(id)) + "-" + what }

// What is kept of a worker.
const (
	keptPID    = "pid"
	keptPair   = "pair"
	keptStderr = "stderr"
	keptStdout = "stdout"
	keptNotify = "notify"
	keptSeat   = "seat"
	keptBoard  = "calls"
	keptBinder = "binder"
)

var keptOfWorker = [...]string{keptPID, keptPair, keptStderr, keptStdout, keptNotify, keptSeat, keptBoard, keptBinder}

func socketName(inode uint64) string { return "s" + strconv.FormatUint(inode, 10) }

func sharedName(key string) string { return "x" + key }

func (k keep) storeSocket(s *handoff.Socket) { k.store(socketName(s.Inode()), s.FD()) }

func (k keep) dropSocket(s *handoff.Socket) { k.drop(socketName(s.Inode())) }

// storeFile keeps what a file or a socket of Go's stands for.
func (k keep) storeFile(name string, f syscall.Conn) error {
	raw, err := f.SyscallConn()
	if err == nil {
		var serr error
		if err = raw.Control(func(fd uintptr) { serr = k.store(name, int(fd)) }); err == nil {
			err = serr
		}
	}
	return err
}
