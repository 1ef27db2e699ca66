// Command gosdk is a Go server with handoff's SDK.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"handoff/worker"
)

func main() {
	w := worker.New()
	network, address := "tcp", "127.0.0.1:"+os.Getenv("PORT")
	if os.Getenv("NETWORK") == "unix" {
		network, address = "unix", os.Getenv("PORT")
	}
	l, err := w.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	hung := make(chan struct{})
	http.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Generation", fmt.Sprint(w.Generation()))
		if d, err := time.ParseDuration(r.FormValue("ms") + "ms"); err == nil {
			<-time.After(d)
		}
		fmt.Fprintln(rw, "ok")
	})
	http.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { close(hung) })
	http.HandleFunc("/replace", func(http.ResponseWriter, *http.Request) { w.Replace() })
	// A websocket's like: it ends when the worker drains.
	http.HandleFunc("/stay", func(rw http.ResponseWriter, _ *http.Request) {
		c, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		fmt.Fprintln(c, "slot", w.Slot())
		go func() {
			defer c.Close()
			<-w.Draining()
			fmt.Fprintln(c, "bye")
		}()
	})
	go w.Watchdog(context.Background(), func() bool {
		select {
		case <-hung:
			return false
		default:
			return true
		}
	})
	if d, err := time.ParseDuration(os.Getenv("BOOT")); err == nil {
		w.Extend(2 * d)
		<-time.After(d)
	}
	w.Status("serves on %v", l.Addr())
	w.Ready()
	if err := w.ServeHTTP(&http.Server{}, l); err != nil {
		log.Fatal(err)
	}
}
