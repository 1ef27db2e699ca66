package api

import "strconv"

// Paths that clients request.
const (
	StatusPath  = "/v1/status"
	ConfigPath  = "/v1/config"
	EventsPath  = "/v1/events"
	LogsPath    = "/v1/logs"
	ReloadPath  = "/v1/reload"
	UpgradePath = "/v1/upgrade"
	ScalePath   = "/v1/scale"
	StopPath    = "/v1/stop"
)

// RestartPath is the restart path of a slot.
func RestartPath(slot int) string { return "/v1/slots/" + strconv.Itoa(slot) + "/restart" }

// Route is a request of the API.
type Route struct {
	Pattern string // method and path, as in [net/http.ServeMux]
	Text    string // what it does and answers
	Former  string // an older name that goes on working; "": none
	Order   bool   // it changes what runs
}

// Routes lists every request.
func Routes() []Route {
	return []Route{
		{Pattern: "GET /v1/status", Text: "the state of the service, see below"},
		{Pattern: "POST /v1/upgrade", Order: true, Text: "replaces handoff itself: `{\"upgraded\": true}` when it is done"},
		{Pattern: "POST /v1/reload", Order: true, Text: "begins a reload: `{\"generation\": N}`; its result is `reload` in the status"},
		{Pattern: "POST /v1/scale", Order: true, Text: "`?workers=N`, or `?by=+1`: `{\"workers\": N}`"},
		{Pattern: "POST /v1/stop", Order: true, Text: "`?now=1` without drain: `{\"stopping\": true}`"},
		{Pattern: "POST /v1/slots/{slot}/restart", Order: true, Text: "replaces the worker of a slot: `{\"worker\": N}` is the one that is replaced"},
		{Pattern: "POST /v1/balance", Order: true, Text: "`?to=even` or `sticky`"},
		{Pattern: "POST /v1/freeze", Order: true, Text: "workers that end are no longer replaced, for the Node SDK"},
		{Pattern: "POST /v1/workers/{worker}/message", Text: "sends a Node worker a message, the JSON of the body"},
		{Pattern: "POST /v1/workers/{worker}/signal", Order: true, Text: "`?name=SIGTERM`: sends a worker a signal"},
		{Pattern: "GET /v1/config", Text: "the configuration in effect, by keys; of the environment only the names"},
		{Pattern: "GET /v1/events", Text: "`?last=N&follow=1`: JSON lines, the last N [events](events.md) (100), and with `follow` new ones"},
		{Pattern: "GET /v1/logs", Text: "`?last=N&follow=1`: JSON lines of what workers write, if `--capture` is set"},
		{Pattern: "GET /v1/worker-events", Former: "GET /v1/told", Text: "`?after=N&of=MASTER`: events, and messages of workers, as numbered lines, for the Node SDK"},
		{Pattern: "POST /v1/worker-events/status", Former: "POST /v1/told/status", Text: "adds the status to them, as the event `cluster.status`"},
	}
}

// The responses to requests that change something.
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
	// StatusPublished is of POST /v1/worker-events/status.
	StatusPublished struct {
		Published bool `json:"told"`
	}
)

// Config is the part of GET /v1/config that commands use; the response has every key of
// handoff.toml.
type Config struct {
	File   string `json:"file"`   // handoff.toml; "": there is none
	Dir    string `json:"cwd"`    // of the workers
	Folder string `json:"folder"` // where the service was started; "": a version before it was said
}
