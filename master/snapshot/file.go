package snapshot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// fileName is the name of the file, visible in /proc/PID/fd.
const fileName = "handoff-state"

// File writes bytes to a file in memory (memfd_create(2)), which the caller closes.
func File(b []byte) (*os.File, error) {
	fd, err := linux.Memfd(fileName, b)
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	return os.NewFile(uintptr(fd), fileName), nil
}

// Write writes a record to a file in memory, which the caller closes.
func Write(r Record) (*os.File, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	return File(b)
}

// maxRecord is the maximum size of a record, in bytes.
const maxRecord = 64 << 20

// Read reads a record from a file, from its start, and closes it.
func Read(fd int) (Record, error) {
	f := os.NewFile(uintptr(fd), fileName)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, maxRecord), maxRecord))
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the state of the previous master: %w", err)
	}
	return Parse(b)
}

// Check reports whether this binary can read the record in a file, which stays the
// caller's.
func Check(fd int) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		_, err = Read(dup)
	}
	return err
}

// Store keeps the file of the last record (the keeper). The same message has the signals
// whose effect is in the record, so that each is handled exactly once.
type Store interface {
	StoreState(fd int, handled []unix.Signal) error
}

// Saver decides when a record is written, and writes it if it differs from the stored
// one. A record has everything, so writing one for each event of n workers would take n²
// time: while events are pending, it may be delayed, see Wait.
type Saver struct {
	dirty   bool
	saved   []byte // that the store has
	at      time.Time
	took    time.Duration
	handled []unix.Signal // since then
	retryAt time.Time     // after a failed write: not before; zero: none has failed
}

const (
	// A record is written when no event is pending, or after waitShare times the duration
	// of the last write, but at the latest after maxWait.
	waitShare = 8
	maxWait   = 50 * time.Millisecond
	// retryEvery is the time after a failed write to the next one, if nothing happens.
	retryEvery = time.Second
)

// Changed notes that a record would differ.
func (s *Saver) Changed() { s.dirty = true }

// Handled records a signal whose effect is in the state.
func (s *Saver) Handled(signal unix.Signal) { s.handled = append(s.handled, signal) }

// Forget records that the store is empty.
func (s *Saver) Forget() { s.saved, s.dirty = nil, true }

// Wait reports whether a pending event may be handled first.
func (s *Saver) Wait(now time.Time) bool {
	return s.dirty && now.Sub(s.at) <= min(waitShare*s.took, maxWait)
}

// Due reports whether something may have changed, and resets that.
func (s *Saver) Due(now time.Time) bool {
	if !s.dirty || now.Before(s.retryAt) {
		return false
	}
	s.dirty, s.retryAt = false, time.Time{}
	return true
}

// Deadline is when a record is due that could not be written; zero: there is none.
func (s *Saver) Deadline() time.Time { return s.retryAt }

// Failed records that a record could not be written: it is due again, after a while.
func (s *Saver) Failed(now time.Time) { s.dirty, s.retryAt = true, now.Add(retryEvery) }

// Next returns the record as bytes, if it must be stored: it differs from the last one, or
// has the effect of a signal. Else nil.
func (s *Saver) Next(r Record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	if bytes.Equal(b, s.saved) && len(s.handled) == 0 {
		return nil, nil
	}
	return b, nil
}

// Signals are those whose effect is in the next record.
func (s *Saver) Signals() []unix.Signal { return s.handled }

// Stored records that the store has a record, and the signals.
func (s *Saver) Stored(b []byte) { s.saved, s.handled, s.retryAt = b, nil, time.Time{} }

// Save stores a record, if it differs from the last one. The whole record is written to a
// new file before it replaces the last one in the store, so that a master that is killed
// at any moment leaves a complete one.
func (s *Saver) Save(r Record, store Store) error {
	began := time.Now()
	defer func() { s.at, s.took = time.Now(), time.Since(began) }()
	b, err := s.Next(r)
	if b == nil {
		return err
	}
	f, err := File(b)
	if err != nil {
		s.Failed(time.Now())
		return err
	}
	defer f.Close()
	if store.StoreState(int(f.Fd()), s.Signals()) == nil { // the store reports its failure
		s.Stored(b)
	}
	return nil
}
