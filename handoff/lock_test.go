package handoff

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holdLock holds the lock of a socket in the kernel until the function is called: by a
// filter whose instructions lie in memory that nobody fills.
func holdLock(t *testing.T, fd int) (release func()) {
	t.Helper()
	u, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if e != 0 {
		t.Skipf("no userfaultfd here: %v", e)
	}
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	at := (*unix.SockFilter)(unsafe.Pointer(&page[0]))
	api, register := [3]uint64{0xAA}, [4]uint64{uint64(uintptr(unsafe.Pointer(at))), 4096, 1}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, u, 0xc018aa3f, uintptr(unsafe.Pointer(&api))); e != 0 {
		t.Skipf("no userfaultfd here: %v", e)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, u, 0xc020aa00, uintptr(unsafe.Pointer(&register))); e != 0 {
		t.Skipf("no userfaultfd here: %v", e)
	}
	done := make(chan struct{})
	go func() { // ends with the userfaultfd
		defer close(done)
		prog := unix.SockFprog{Len: 1, Filter: at}
		unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, uintptr(unsafe.Pointer(&prog)), unsafe.Sizeof(prog), 0)
	}()
	var event [32]byte
	if n, err := unix.Read(int(u), event[:]); n <= 0 { // the fault, with the lock held
		t.Fatal(err)
	}
	return func() {
		unix.Close(int(u))
		<-done
		unix.Munmap(page)
	}
}

// Who holds a socket's lock holds up nobody: the others are steered to, and take other
// sockets; it is used again when the lock is free.
func TestLockHeld(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	g, err := w.Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	one, err := g.Take(0)
	if err != nil {
		t.Fatal(err)
	}
	other, err := g.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	release := holdLock(t, one.FD())
	began := time.Now()
	for _, targets := range [][]*Socket{{one, other}, {other}, {one, other}} {
		if err := g.Steer(targets); err != nil {
			t.Error(err)
		}
	}
	g.Steer([]*Socket{other})
	one.Release()
	third, err := g.Take(0)
	if err != nil || third == one {
		t.Errorf("a worker gets the socket: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it has taken %v", took)
	}
	release()
	for late := time.Now().Add(20 * time.Second); one.stuck(); {
		if time.Now().After(late) {
			t.Fatal("it is not used again")
		}
	}
	if fourth, err := g.Take(2); err != nil || fourth != one {
		t.Errorf("it is not taken again: %v", err)
	}
}
