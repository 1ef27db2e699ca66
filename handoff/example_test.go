package handoff_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// worker stands for a process: it has a duplicate of a socket, and accepts from it
// until it is told to end.
type worker struct {
	socket   *handoff.Socket
	listener net.Listener
}

func newWorker(group *handoff.Group, slot int, answer string) worker {
	socket, err := group.Take(slot)
	if err != nil {
		log.Fatal(err)
	}
	// A process would get it in exec.Cmd.ExtraFiles.
	fd, err := unix.FcntlInt(uintptr(socket.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		log.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		log.Fatal(err)
	}
	go func() { // ends with the listener
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, answer)
			c.Close()
		}
	}()
	return worker{socket, listener}
}

// A program holds an address for two workers, and replaces them by two others while
// clients connect: none is refused, and none that comes after the steering is answered
// by the old ones.
func Example() {
	watch, err := handoff.NewWatch()
	if err != nil {
		log.Fatal(err)
	}
	group, err := watch.Listen(handoff.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		log.Fatal(err)
	}
	calls, ended := make(chan func()), make(chan struct{})
	go func() { // ends when calls is closed
		defer close(ended)
		watch.Run(calls, func(e handoff.Event) { log.Printf("%+v", e) })
	}()
	// in has the owner's goroutine do something.
	in := func(f func()) {
		done := make(chan struct{})
		calls <- func() { defer close(done); f() }
		<-done
	}
	steer := func(workers []worker) {
		var targets []*handoff.Socket
		for _, w := range workers {
			targets = append(targets, w.socket)
		}
		if err := group.Steer(targets); err != nil {
			log.Fatal(err)
		}
	}
	ask := func() string {
		c, err := net.Dial("tcp", group.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		b := make([]byte, 16)
		n, _ := c.Read(b)
		return string(b[:n])
	}

	var old, next []worker
	in(func() {
		for slot := range 2 {
			old = append(old, newWorker(group, slot, "version 1"))
		}
		steer(old)
	})
	fmt.Println(ask(), ask())

	in(func() {
		for slot := range 2 {
			next = append(next, newWorker(group, slot, "version 2"))
		}
		steer(next) // in one instant, for all
	})
	fmt.Println(ask(), ask())

	for _, w := range old {
		quiet := w.socket.Quiet(time.Now(), 10*time.Millisecond)
		for {
			var ok bool
			var again time.Duration
			if in(func() { ok, again = quiet.Look(time.Now()) }); ok {
				break
			}
			<-time.After(again)
		}
		w.listener.Close()   // nothing can come to it any more: it may end
		in(w.socket.Release) // parked, for a third generation
	}
	in(func() {
		for _, s := range group.Sockets() {
			fmt.Println("slot", s.Slot(), "held:", s.Held())
		}
	})

	close(calls)
	<-ended
	for _, w := range next {
		w.listener.Close()
	}
	// Output:
	// version 1 version 1
	// version 2 version 2
	// slot 0 held: false
	// slot 1 held: false
	// slot 0 held: true
	// slot 1 held: true
}
