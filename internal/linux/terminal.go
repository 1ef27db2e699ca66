package linux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTerminal opens the controlling terminal, non-blocking; nil: there is none.
func OpenTerminal() *os.File {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "/dev/tty")
}

// LeaveTerminal gives up this process's controlling terminal, and that of what it starts
// from now on: one of another user's can then neither open /dev/tty nor type into the
// terminal (TIOCSTI). The session stays what it is: one of its own would be a group of its
// own for the scheduler (sched(7), autogroup). The leader of a session keeps its terminal:
// giving it up would end the session's other processes.
func LeaveTerminal() error {
	tty := OpenTerminal()
	if tty == nil {
		return nil
	}
	defer tty.Close()
	if sid, err := unix.Getsid(0); err != nil || sid == os.Getpid() {
		return err
	}
	if err := unix.IoctlSetInt(int(tty.Fd()), unix.TIOCNOTTY, 0); err != nil {
		return fmt.Errorf("cannot detach from the terminal: %w", err)
	}
	return nil
}

// OpenPTY opens a pseudoterminal that changes nothing of what is written to it. master is
// non-blocking.
func OpenPTY() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
		slave, err = peer(fd)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("cannot open a terminal: %w", err)
	}
	return master, slave, nil
}

// peer opens the other end, wherever /dev/pts is.
func peer(master int) (*os.File, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, errno
	}
	slave := os.NewFile(fd, "pts")
	termios, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
	if err == nil {
		termios.Oflag &^= unix.OPOST
		termios.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		termios.Iflag &^= unix.IXON | unix.ICRNL
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, termios)
	}
	if err != nil {
		slave.Close()
		return nil, err
	}
	return slave, nil
}
