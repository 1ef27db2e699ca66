// Command bad is a server with one fault, which `handoff prove` must find.
//
//	reset   it resets its connections on SIGTERM, and ends
//	deaf    from the second generation on it stops accepting after a while
//	stale   it listens on a socket of its own, and serves on when it is told to go
//	silent  from the second generation on it answers half a response
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	fault := os.Args[1]
	generation, _ := strconv.Atoi(os.Getenv("HANDOFF_GENERATION"))
	var own net.ListenConfig
	if fault == "stale" {
		own.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}
	}
	l, err := own.Listen(context.Background(), "tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		for range term {
			if fault == "stale" {
				time.AfterFunc(3*time.Second, func() { os.Exit(0) })
				continue
			}
			mu.Lock()
			for c := range conns {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			os.Exit(1)
		}
	}()
	for n := 0; ; n++ {
		if fault == "deaf" && generation > 1 && n > 50 {
			select {}
		}
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		mu.Lock()
		conns[c] = true
		mu.Unlock()
		go func() { // ends with the connection
			defer func() {
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
				c.Close()
			}()
			in := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				time.Sleep(2 * time.Millisecond)
				length := 3
				if fault == "silent" && generation > 1 {
					length = 30
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nok\n", length)
				if length > 3 || req.Close {
					return
				}
			}
		}()
	}
}
