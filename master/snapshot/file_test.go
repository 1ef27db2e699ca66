package snapshot

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestFile(t *testing.T) {
	was := Record{Version: Version, Seq: 7, LastError: "none \u00fc"}
	f, err := Write(was)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // from the start, wherever somebody else has left off reading
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		is, err := Read(fd)
		if err != nil || !reflect.DeepEqual(is, was) {
			t.Fatalf("%+v, %v; want %+v", is, err, was)
		}
		if err := unix.Close(fd); err != unix.EBADF {
			t.Fatalf("Read has left its descriptor open (%v)", err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	fd, _ := unix.Dup(int(r.Fd()))
	r.Close()
	if _, err := Read(fd); err == nil {
		t.Error("a pipe is taken for a record")
	}
}

// keeper is a store that remembers what it was given.
type keeper struct {
	records []Record
	handled [][]unix.Signal
	fails   error
}

func (k *keeper) StoreState(fd int, handled []unix.Signal) error {
	if k.fails != nil {
		return k.fails
	}
	fd, err := unix.Dup(fd)
	if err != nil {
		return err
	}
	r, err := Read(fd)
	k.records, k.handled = append(k.records, r), append(k.handled, handled)
	return err
}

func TestSaver(t *testing.T) {
	var s Saver
	k := &keeper{}
	save := func(r Record) {
		t.Helper()
		r.Version = Version
		if err := s.Save(r, k); err != nil {
			t.Fatal(err)
		}
	}
	save(Record{Seq: 1})
	save(Record{Seq: 1}) // nothing new
	if len(k.records) != 1 {
		t.Fatalf("%d records written, want 1", len(k.records))
	}
	s.Handled(unix.SIGUSR2)
	save(Record{Seq: 1}) // the signal is
	if len(k.records) != 2 || !reflect.DeepEqual(k.handled[1], []unix.Signal{unix.SIGUSR2}) {
		t.Fatalf("%d records, signals %v", len(k.records), k.handled)
	}
	k.fails = errors.New("mute")
	s.Handled(unix.SIGHUP)
	save(Record{Seq: 2})
	k.fails = nil
	save(Record{Seq: 2}) // what it has not taken is not taken for kept
	if len(k.records) != 3 || k.records[2].Seq != 2 || !reflect.DeepEqual(k.handled[2], []unix.Signal{unix.SIGHUP}) {
		t.Fatalf("%d records, signals %v", len(k.records), k.handled)
	}
	save(Record{Seq: 2})
	s.Forget()
	now := time.Now()
	if !s.Due(now) || s.Due(now) {
		t.Error("after Forget a record is due, once")
	}
	save(Record{Seq: 2})
	if len(k.records) != 4 {
		t.Errorf("%d records, want 4: the store had lost the last one", len(k.records))
	}
}

// A record that cannot be written is due again after a second, also if nothing happens.
func TestSaverTriesAgain(t *testing.T) {
	var s Saver
	now := time.Now()
	s.Changed()
	if !s.Due(now) || !s.Deadline().IsZero() {
		t.Error("a change is due at once, and no deadline is set")
	}
	s.Failed(now)
	at := s.Deadline()
	if !at.Equal(now.Add(retryEvery)) || s.Due(at.Add(-1)) || !s.Due(at) || s.Due(at) {
		t.Errorf("due again at %v", at.Sub(now))
	}
	s.Failed(now)
	if s.Stored(nil); !s.Deadline().IsZero() {
		t.Error("one that was stored is due again")
	}
}

// slow is a store that takes its time.
type slow time.Duration

func (d slow) StoreState(int, []unix.Signal) error {
	<-time.After(time.Duration(d))
	return nil
}

func TestSaverWaitsForEvents(t *testing.T) {
	for _, c := range []struct{ took, wait time.Duration }{{2 * time.Millisecond, 16 * time.Millisecond}, {time.Second, maxWait}} {
		synctest.Test(t, func(t *testing.T) {
			var s Saver
			if s.Wait(time.Now()) {
				t.Error("nothing is to be written, and it waits")
			}
			if err := s.Save(Record{Version: Version}, slow(c.took)); err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			s.Changed()
			if !s.Wait(now.Add(c.wait)) || s.Wait(now.Add(c.wait+1)) {
				t.Errorf("the last record took %v: the next one waits for events other than %v", c.took, c.wait)
			}
		})
	}
}

func TestTextOfJSON(t *testing.T) {
	b, err := json.Marshal(Texts([]string{"plain", "\xff"}))
	if err != nil || !strings.Contains(string(b), `"plain"`) || !strings.Contains(string(b), `{"base64":`) {
		t.Fatalf("%s, %v", b, err)
	}
	var back []Text
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(Strings(back), []string{"plain", "\xff"}) {
		t.Errorf("%q, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`[{"base64": 1}]`), &back); err == nil {
		t.Error("a number is taken for base64")
	}
}
