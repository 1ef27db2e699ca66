package quicgo_test

import (
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"handoff/sdk/quicgo"
	"handoff/worker"
)

// A server of HTTP/3 that keeps its connections over reloads, and drains them. A whole one,
// with HTTP/2 beside it, is in examples/http3.
func ExampleServeHTTP3() {
	w := worker.New()
	cert, err := tls.LoadX509KeyPair("cert.pem", "key.pem")
	if err != nil {
		log.Fatal(err)
	}
	c, err := net.ListenPacket("udp", ":443")
	if err != nil {
		log.Fatal(err)
	}
	w.Ready()
	srv := &http3.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Handler:   http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, "ok") }),
	}
	if err := quicgo.ServeHTTP3(w, srv, &quic.Transport{Conn: c}); err != nil {
		log.Fatal(err)
	}
}

// Any other protocol over QUIC: the ids alone keep connections with their worker.
func ExampleConnectionIDs() {
	w := worker.New()
	c, err := net.ListenPacket("udp", ":4433")
	if err != nil {
		log.Fatal(err)
	}
	tr := &quic.Transport{Conn: c, ConnectionIDGenerator: quicgo.ConnectionIDs(w)}
	_ = tr // tr.Listen, and w.Draining to know when to end
}
