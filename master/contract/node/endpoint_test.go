package node

import (
	"testing"

	"handoff/internal/nodeipc"
	"handoff/master/listeners"
)

// Node's cluster module makes a path of an abstract name, too.
func TestEndpointOfAPath(t *testing.T) {
	for path, want := range map[string]string{"/srv/a.sock": "/srv/a.sock", "a.sock": "/srv/a.sock", "/srv/\x00name": "@name", "\x00a/b": "@a/b", "/srv/@a": "/srv/@a", "@a": "/srv/@a", "": ""} {
		if e := endpointOf(nodeipc.Query{Type: nodeipc.Pipe, Address: path, Port: -1}, "/srv"); e.Addr != want || e.Family != listeners.Unix {
			t.Errorf("%q: %+v", path, e)
		}
	}
}
