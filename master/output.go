package master

import (
	"slices"
	"time"

	"handoff/internal/api"
	"handoff/internal/events"
)

// outputLost logs once that output of workers is lost, and once that it no longer is.
func (m *Master) outputLost(e outputLost) {
	h := &m.history
	h.counters.LinesLost += e.lines
	at := slices.IndexFunc(h.output, func(o api.OutputStatus) bool { return o.To == e.to })
	switch {
	case e.err != nil && at >= 0:
		h.output[at].Lost += e.lines
	case e.err != nil:
		h.output = append(h.output, api.OutputStatus{To: e.to, Error: e.err.Error(), Lost: e.lines, Since: time.Now()})
		m.log.Error("Cannot write what workers say to "+e.to+": "+e.err.Error()+"; lines are lost, the workers go on", "event", events.OutputLost, "to", e.to, "error", e.err.Error())
	case at >= 0:
		m.log.Warn("What workers say is written to "+e.to+" again", "event", events.OutputRecovered, "to", e.to, "lines", h.output[at].Lost+e.lines)
		h.output = slices.Delete(h.output, at, at+1)
	}
}
