// Command server listens on HOST (127.77.0.1), on as many ports from 7000 on as ADDRESSES says.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"

	"handoff/worker"
)

func main() {
	n, _ := strconv.Atoi(os.Getenv("ADDRESSES"))
	w := worker.New()
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "ok") })}
	host := os.Getenv("HOST")
	if host == "" {
		host = "127.77.0.1"
	}
	for i := range max(n, 1) {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(7000+i)))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go s.Serve(l) // ends with the process
	}
	w.Ready()
	<-w.Draining()
}
