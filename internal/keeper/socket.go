package keeper

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/sdnotify"
)

// socket receives the messages of masters.
type socket struct {
	conn     *cmsg.Conn
	address  string
	readable chan struct{} // receives when a notice has arrived; never closed
	closed   chan struct{} // by close, once
}

const maxRead = 256 // maximum notices per read

// listen opens the socket, and waits for notices in a goroutine that ends with it.
func listen(place sdnotify.Place) (*socket, error) {
	place.Sweep()
	s := &socket{readable: make(chan struct{}, 1), closed: make(chan struct{})}
	var err error
	if s.conn, s.address, err = place.Listen(); err != nil {
		return nil, err
	}
	raw, err := s.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) })
	}
	if err != nil {
		sdnotify.Close(s.conn)
		return nil, err
	}
	go s.await()
	return s, nil
}

// listen opens the socket; again, if its file is gone: a cleaner of temporary files may
// have removed the runtime folder, and the next master could not reach this keeper.
func (k *keeper) listen() error {
	if k.socket != nil {
		if _, err := os.Lstat(k.socket.address); sdnotify.Abstract(k.socket.address) || !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	s, err := listen(sdnotify.Place{Dir: k.cfg.Dir, UID: os.Geteuid()})
	if err != nil {
		return err
	}
	if k.socket != nil {
		k.say("%s has been removed: listening on %s", k.socket.address, s.address)
		k.socket.close()
	}
	k.socket = s
	return nil
}

func (s *socket) close() {
	close(s.closed)
	sdnotify.Close(s.conn)
}

// await waits for notices, and leaves them to the owner: notices before a child's death
// are read before the death is handled.
func (s *socket) await() {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := raw.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		select {
		case s.readable <- struct{}{}:
		case <-s.closed:
			return
		}
	}
}

// read handles every notice that has arrived.
func (k *keeper) read() {
	buf := make([]byte, 4096)
	for range maxRead {
		m, err := k.socket.conn.ReceiveNow(buf)
		if err != nil {
			return
		}
		pid := 0
		// A sender outside of this pid namespace has pid 0; one of another user is not a
		// master.
		if m.Sender != nil && int(m.Sender.Uid) == os.Geteuid() {
			pid = int(m.Sender.Pid)
		}
		k.notice(pid, string(buf[:m.N]), m.FDs)
	}
}
