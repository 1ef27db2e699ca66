// Package api has the types of the control API: what a client sends, and what it
// gets. Server and clients import it; it knows neither of them, nor the master.
//
// Its JSON is stable: fields are added, never changed or removed. The environment
// of the workers is never in it.
package api

// What the requests that change something answer.
type (
	// Reloading is of POST /v1/reload. [Status.Reload] says what comes of it.
	Reloading struct {
		Generation int `json:"generation"` // that the reload starts
	}
	// Upgraded is of POST /v1/upgrade, once the new binary has taken over.
	Upgraded struct {
		Upgraded bool `json:"upgraded"`
	}
	// Scaled is of POST /v1/scale.
	Scaled struct {
		Workers int `json:"workers"` // that are wanted now
	}
	// Stopping is of POST /v1/stop: the service stops, it has not stopped yet.
	Stopping struct {
		Stopping bool `json:"stopping"`
	}
	// Restarting is of POST /v1/slots/N/restart.
	Restarting struct {
		Worker int `json:"worker"` // the one that is replaced
	}
	// Balanced is of POST /v1/balance.
	Balanced struct {
		Balance string `json:"balance"`
	}
	// Frozen is of POST /v1/freeze.
	Frozen struct {
		Frozen bool `json:"frozen"`
	}
	// Sent is of POST /v1/workers/N/message and /signal.
	Sent struct {
		Sent bool `json:"sent"`
	}
	// Told is of POST /v1/worker-events/status.
	Told struct {
		Told bool `json:"told"`
	}
)

// Config is of GET /v1/config, as far as a command decides by it; the answer has
// every key of handoff.toml.
type Config struct {
	File string `json:"file"` // handoff.toml; "": there is none
}
