package worker_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"handoff/worker"
)

// A whole server. It runs alone, and under `handoff run -- ./server`.
func Example() {
	w := worker.New()
	l, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(rw, "slot", w.Slot(), "of generation", w.Generation())
	})}
	w.Ready()
	go drainSoon() // handoff does this
	if err := w.ServeHTTP(srv, l); err != nil {
		log.Fatal(err)
	}
	fmt.Println("drained")
	// Output: drained
}

func drainSoon() { syscall.Kill(os.Getpid(), syscall.SIGTERM) }

// Readiness is said when the program can serve well: `handoff run --ready-when
// ready`. Until then the old generation serves.
func ExampleWorker_Ready() {
	w := worker.New()
	defer signal.Reset()
	w.Status("filling the cache")
	w.Extend(time.Minute) // the ready timeout is from now on
	// … fill it …
	if err := w.Ready(); err != nil {
		log.Print(err) // nobody has heard it
	}
	fmt.Println("ready, managed:", w.Managed())
	// Output: ready, managed: false
}

// Sockets that are not HTTP: stop accepting when the worker drains, and finish.
func ExampleWorker_Draining() {
	w := worker.New()
	l, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-w.Draining()
		l.Close() // nothing is on its way to it any more
	}()
	go drainSoon()
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		go func(c net.Conn) { defer c.Close() }(c)
	}
	fmt.Println("drained")
	// Output: drained
}

// Work that is not a connection ends by a context.
func ExampleWorker_Context() {
	w := worker.New()
	ctx, cancel := w.Context(context.Background())
	defer cancel()
	go drainSoon()
	<-ctx.Done()
	fmt.Println(context.Cause(ctx))
	// Output: the worker drains
}

// With `handoff run --watchdog 10s`, a worker that does not say that it is well
// is replaced.
func ExampleWorker_Watchdog() {
	w := worker.New()
	defer signal.Reset()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go w.Watchdog(ctx, func() bool {
		return true // ask the database, for example; do not wait for long
	})
	fmt.Println("serving")
	// Output: serving
}
