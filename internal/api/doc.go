// Package api has the types of the control API: requests and responses. Server and
// clients import it; it knows neither them, nor the master.
//
// Its JSON is stable: fields are added, never changed or removed. The environment
// of the workers is never in it.
package api
