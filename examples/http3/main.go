// Command http3 serves HTTP/3, and HTTP/2 and 1.1 beside it, on one port, UDP and TCP:
//
//	go build -o http3 . && handoff run -n 2 --ready-when ready -- ./http3
//	curl --http3-only -k https://127.0.0.1:8443/
//
// TLS_CERT and TLS_KEY are the files of its certificate; without, it makes one for itself.
package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"handoff/sdk/quicgo"
	"handoff/worker"
)

func main() {
	w := worker.New()
	addr := net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "8443"))
	cert, err := certificate(os.Getenv("TLS_CERT"), os.Getenv("TLS_KEY"))
	check(err)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}

	tcp, err := w.Listen("tcp", addr)
	check(err)
	udp, err := net.ListenPacket("udp", addr)
	check(err)
	check(w.Ready())

	h3 := &http3.Server{Handler: site(w), TLSConfig: config}
	h2 := &http.Server{TLSConfig: config.Clone(), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h3.SetQUICHeaders(rw.Header()) // Alt-Svc: how browsers learn of HTTP/3
		site(w).ServeHTTP(rw, r)
	})}
	drained := make(chan error, 1)
	go func() { drained <- w.ServeHTTPS(h2, tcp, "", "") }()
	check(quicgo.ServeHTTP3(w, h3, &quic.Transport{Conn: udp}))
	check(<-drained)
}

func site(w *worker.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Generation", strconv.Itoa(w.Generation()))
		fmt.Fprintf(rw, "slot %d of generation %d, by %s\n", w.Slot(), w.Generation(), r.Proto)
	})
	// /slow takes two seconds: over a reload, too.
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Generation", strconv.Itoa(w.Generation()))
		for i := range 20 {
			fmt.Fprintln(rw, i)
			http.NewResponseController(rw).Flush()
			select {
			case <-time.After(100 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	})
	return mux
}

func certificate(certFile, keyFile string) (tls.Certificate, error) {
	if certFile != "" {
		return tls.LoadX509KeyPair(certFile, keyFile)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().AddDate(1, 0, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
