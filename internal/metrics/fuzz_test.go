package metrics

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"handoff/internal/api"
)

// Names, addresses and reasons have what configurations and programs say: Prometheus can
// read the text, and finds the name that it was.
func FuzzMetrics(f *testing.F) {
	f.Add("web", "/run/a\nb\"\\\xff", "crashed", []byte(`{"workers": [{"slot": 1, "phase": "serving"}], "slots": 2}`))
	f.Add("\\n", "", "\x00", []byte(`{"slots": -1, "addresses": [{"queue": -5}]}`))
	f.Fuzz(func(t *testing.T, name, address, reason string, status []byte) {
		m := api.Metrics{Counters: api.Counters{Restarts: map[string]int{reason: 1}, Reloads: map[string]int{reason: 2}}}
		if json.Unmarshal(status, &m.Status) != nil || m.Status.Slots > 1000 || len(m.Status.Workers) > 100 {
			return
		}
		m.Status.Name = name
		if m.Status.Addresses = append(m.Status.Addresses[:0:0], api.AddressStatus{Address: address, Balance: "even"}); address == "" {
			m.Status.Addresses = nil
		}
		var b bytes.Buffer
		if err := Write(&b, m, 3); err != nil {
			t.Fatal(err)
		}
		p := expfmt.NewTextParser(model.UTF8Validation)
		all, err := p.TextToMetricFamilies(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatalf("%q, %q, %q, %q: %v", name, address, reason, status, err)
		}
		up := all["handoff_up"]
		if up == nil || len(up.Metric) != 1 {
			t.Fatalf("handoff_up: %v", up)
		}
		for _, l := range up.Metric[0].Label {
			if l.GetName() == "service" && l.GetValue() != strings.ToValidUTF8(name, "\ufffd") {
				t.Errorf("service %q became %q", name, l.GetValue())
			}
		}
	})
}
