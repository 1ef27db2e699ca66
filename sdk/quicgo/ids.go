// Package quicgo is for servers with quic-go (QUIC, HTTP/3) that handoff runs. A connection
// of QUIC is identified by ids that its server chooses, and its client may change its
// address at any time. With the ids of this package, which name the worker, the kernel
// brings every packet of a connection to the worker that has it, until that one is gone:
// over reloads, and whatever the client's address. handoff needs no privilege for that, and
// no option: it knows such ids when it sees them.
//
//	func main() {
//		w := worker.New()
//		c, err := net.ListenPacket("udp", ":443")
//		if err != nil {
//			log.Fatal(err)
//		}
//		w.Ready()
//		srv := &http3.Server{Handler: mux, TLSConfig: config}
//		if err := quicgo.ServeHTTP3(w, srv, &quic.Transport{Conn: c}); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// It is a module of its own, so that others do not have quic-go among their dependencies. No
// module proxy has it; a program needs
//
//	go mod edit -require handoff@v0.0.0 -replace handoff=/path/to/handoff \
//	            -require handoff/sdk/quicgo@v0.0.0 -replace handoff/sdk/quicgo=/path/to/handoff/sdk/quicgo
//	go mod tidy
package quicgo

import (
	"crypto/rand"

	"github.com/quic-go/quic-go"

	"handoff/handoff"
	"handoff/worker"
)

// randomLen is how many random bytes follow the worker's prefix in a connection id.
const randomLen = 6

// ConnectionIDs returns the generator for [quic.Transport.ConnectionIDGenerator]. The ids
// have 12 bytes, of which 6 are the same in all ids of the worker: who watches the network
// sees which connections are of one worker, and nothing else. Without handoff they have no
// effect.
func ConnectionIDs(w *worker.Worker) quic.ConnectionIDGenerator {
	return ids{handoff.ConnectionIDPrefix(w.ID())}
}

type ids struct{ prefix []byte }

func (g ids) GenerateConnectionID() (quic.ConnectionID, error) {
	b := make([]byte, g.ConnectionIDLen())
	rand.Read(b[copy(b, g.prefix):])
	return quic.ConnectionIDFromBytes(b), nil
}

func (g ids) ConnectionIDLen() int { return len(g.prefix) + randomLen }
