package nodeipc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// testdata/golden.jsonl has lines as Node wrote them on a channel, each with
// what it means here; sdk/node's tests read the same file.
func TestGolden(t *testing.T) {
	f, err := os.Open("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for in := bufio.NewScanner(f); in.Scan(); n++ {
		var g struct {
			Line  json.RawMessage `json:"line"`
			Means string          `json:"means"`
		}
		if err := json.Unmarshal(in.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		m, err := Parse(g.Line)
		got := "error"
		if err == nil {
			got = reflect.TypeOf(m).Name()
		}
		if got != g.Means {
			t.Errorf("%s\n is %s (%v), want %s", g.Line, got, err, g.Means)
		}
	}
	if n < 15 {
		t.Errorf("only %d golden lines", n)
	}
}

func TestQueryFields(t *testing.T) {
	m, err := Parse([]byte(`{"cmd":"NODE_CLUSTER","act":"queryServer","index":1,"data":{"ticketKeys":"ab"},"address":"::","port":443,"addressType":6,"fd":-1,"flags":1,"seq":7}`))
	want := Query{Seq: 7, Index: 1, Address: "::", Port: 443, Type: TCP6, FD: -1, V6Only: true, Data: json.RawMessage(`{"ticketKeys":"ab"}`)}
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("%+v, %v; want %+v", m, err, want)
	}
	long := `{"cmd":"NODE_CLUSTER","act":"queryServer","data":"` + strings.Repeat("x", 2000) + `","port":443,"addressType":6,"seq":7}`
	if m, _ := Parse([]byte(long)); !m.(Query).TooLong || m.(Query).Data != nil {
		t.Errorf("data of 2000 bytes: %+v", m)
	}
	m, _ = Parse([]byte(`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3000,"addressType":4,"seq":1}`))
	if q := m.(Query); !q.Any || q.FD != -1 || q.Port != 3000 {
		t.Errorf("%+v", q)
	}
}

func TestLinesArriveSplitAndJoined(t *testing.T) {
	stream := "{\"a\":1}\n\"ready\"\n" + `{"b":"` + strings.Repeat("x", 5000) + "\"}\n\n[1]\n"
	var whole []string
	var s Splitter
	s.Feed([]byte(stream), func(l []byte) { whole = append(whole, string(l)) })
	for _, step := range []int{1, 2, 3, 7, 64, 4096} {
		var got []string
		var s Splitter
		for rest := []byte(stream); len(rest) > 0; {
			n := min(step, len(rest))
			s.Feed(rest[:n], func(l []byte) { got = append(got, string(l)) })
			rest = rest[n:]
		}
		if !reflect.DeepEqual(got, whole) || len(s.partial) != 0 {
			t.Errorf("in steps of %d: %d lines, want %d", step, len(got), len(whole))
		}
	}
}

func TestHugeLineIsDroppedAlone(t *testing.T) {
	var s Splitter
	var got []string
	keep := func(l []byte) { got = append(got, string(l)) }
	s.Feed([]byte("1\n"), keep)
	dropped := 0
	chunk := bytes.Repeat([]byte("x"), 60<<10)
	for range 50 {
		dropped += s.Feed(chunk, keep)
		if len(s.partial) > MaxLine {
			t.Fatal("the partial line is not bounded")
		}
	}
	dropped += s.Feed([]byte("end\n2\n"), keep)
	if dropped != 1 || !reflect.DeepEqual(got, []string{"1", "2"}) {
		t.Errorf("dropped %d, lines %q", dropped, got)
	}
}

func TestSent(t *testing.T) {
	q := Query{Seq: 3, Data: json.RawMessage(`null`)}
	for _, c := range []struct{ got, want string }{
		{string(Reply(q, Stream, "k1", q.Data)), `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","ack":3,"key":"k1","errno":0,"data":null,"seq":3}}`},
		{string(Refuse(q, "k1", 98)), `{"cmd":"NODE_CLUSTER","ack":3,"key":"k1","errno":-98,"data":null}`},
		{string(NewConn("k1", 9)), `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k1","seq":9}}`},
		{string(Ack(4)), `{"cmd":"NODE_CLUSTER","ack":4}`},
		{string(HandleReceipt()), `{"cmd":"NODE_HANDLE_ACK"}`},
		{string(Drain(5, "")), "{\"cmd\":\"NODE_HANDOFF\",\"act\":\"drain\"}\n{\"cmd\":\"disconnect\"}\n" + `{"cmd":"NODE_CLUSTER","act":"disconnect","seq":5}`},
		{string(Drain(5, "bye")), `{"cmd":"NODE_HANDOFF","act":"drain","message":"bye"}` + "\n" + `{"cmd":"disconnect"}` + "\n\"bye\"\n" + `{"cmd":"NODE_CLUSTER","act":"disconnect","seq":5}`},
	} {
		if c.got != c.want+"\n" {
			t.Errorf("sent %swant %s", c.got, c.want)
		}
	}
}

func FuzzChannel(f *testing.F) {
	golden, _ := os.ReadFile("testdata/golden.jsonl")
	for l := range bytes.Lines(golden) {
		f.Add(l, 5)
	}
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		var s Splitter
		if step <= 0 {
			step = 1
		}
		for len(b) > 0 {
			n := min(step, len(b))
			s.Feed(b[:n], func(line []byte) {
				m, err := Parse(line)
				if (m == nil) == (err == nil) {
					t.Fatalf("%q: %v, %v", line, m, err)
				}
				if q, ok := m.(Query); ok {
					// What came in can go out.
					Reply(q, Stream, "k", q.Data)
				}
			})
			b = b[n:]
		}
	})
}
