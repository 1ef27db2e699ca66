// Package api has the types of the control API: what a client sends, and what it
// gets. Server and clients import it; it knows neither of them, nor the master.
//
// Its JSON is stable: fields are added, never changed or removed. The environment
// of the workers is never in it.
package api
