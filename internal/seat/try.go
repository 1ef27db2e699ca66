package seat

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Try runs a program behind the filter, and returns why the kernel refuses that.
// exe is a handoff.
func Try(exe string) error {
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		theirs.Close()
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(exe, Args(3, 0, Conditions{}, "/bin/true", []string{"true"}), &os.ProcAttr{Files: []*os.File{null, null, null, theirs}})
	theirs.Close()
	if err != nil {
		return err
	}
	defer func() {
		p.Kill()
		p.Wait()
	}()
	ours.SetReadDeadline(time.Now().Add(tryPatience))
	buf := make([]byte, 4)
	n, fds, err := ours.Read(buf)
	for _, fd := range fds {
		unix.Close(fd)
	}
	switch {
	case err != nil:
		return err
	case n < 4:
		return errors.New("no answer")
	}
	if e := unix.Errno(binary.NativeEndian.Uint32(buf)); e != 0 {
		return e
	}
	return nil
}

const tryPatience = 10 * time.Second
