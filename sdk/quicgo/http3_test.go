package quicgo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"handoff/handoff"
	"handoff/worker"
)

// patience is for failure only.
const patience = 20 * time.Second

// A drain, without handoff: it ends what has begun, and closes what is idle.
func TestDrain(t *testing.T) {
	t.Setenv("HANDOFF_KEEPALIVE_LINGER", "300ms")
	w := worker.New()
	var began, goOn = make(chan struct{}), make(chan struct{})
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName == "slow.test" {
			close(began)
			<-goOn
		}
		return nil, nil
	}
	asked := make(chan struct{})
	srv := &http3.Server{TLSConfig: cfg, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(asked)
			<-w.Draining()
			<-goOn
		}
		io.WriteString(rw, "done")
	})}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	served := make(chan error, 1)
	go func() { served <- ServeHTTP3(w, srv, tr) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	slow := make(chan error, 1)
	client := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer client.Close()
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+pc.LocalAddr().String()+"/slow", nil)
		res, err := client.RoundTrip(req)
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(res.Body); err == nil && string(b) != "done" {
				err = fmt.Errorf("%q", b)
			}
		}
		slow <- err
	}()
	dial := func(name string) (*quic.Conn, error) {
		return quic.DialAddr(ctx, pc.LocalAddr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"h3"}}, nil)
	}
	idle, err := dial("idle.test")
	if err != nil {
		t.Fatal(err)
	}
	handshake := make(chan error, 1)
	go func() {
		q, err := dial("slow.test")
		if err == nil { // and it is served: SETTINGS, GOAWAY
			_, err = q.AcceptUniStream(ctx)
		}
		handshake <- err
	}()
	<-asked
	<-began
	syscall.Kill(os.Getpid(), syscall.SIGTERM)
	<-w.Draining()
	close(goOn)
	if err := <-handshake; err != nil {
		t.Errorf("a handshake in progress: %v", err)
	}
	if err := <-slow; err != nil {
		t.Errorf("a request in progress: %v", err)
	}
	<-idle.Context().Done()
	var closed *quic.ApplicationError
	if err := context.Cause(idle.Context()); !errors.As(err, &closed) || closed.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeNoError) {
		t.Errorf("an idle connection ends by %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestConnectionIDs(t *testing.T) {
	t.Setenv("HANDOFF_WORKER", "258")
	t.Setenv("HANDOFF_GENERATION", "1")
	g := ConnectionIDs(worker.New())
	a, err := g.GenerateConnectionID()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := g.GenerateConnectionID()
	if a == b || a.Len() != g.ConnectionIDLen() || !bytes.HasPrefix(a.Bytes(), handoff.ConnectionIDPrefix(258)) {
		t.Errorf("%v, %v", a, b)
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
