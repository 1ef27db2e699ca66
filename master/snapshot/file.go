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

// fileName is what the file is called, for people who look at descriptors.
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

// maxRecord bounds a record, in bytes.
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

// Store keeps the file of the last record (the keeper). It takes the signals that the
// record takes account of in the same message, so that none is handled twice or not at
// all.
type Store interface {
	StoreState(fd int, handled []unix.Signal) error
}

// Saver decides when a record is written, and writes it if it differs from the one
// that the store has. The record is of everything, so that one for each event of n
// workers would take n² time: while events wait, it may wait, see Wait.
type Saver struct {
	dirty   bool
	saved   []byte // that the store has
	at      time.Time
	took    time.Duration
	handled []unix.Signal // since then
}

const (
	// A record is written when nothing else is to be done, or when waitShare times as
	// long has passed as the last one took, but at the latest after maxWait.
	waitShare = 8
	maxWait   = 50 * time.Millisecond
)

// Changed notes that a record would differ.
func (s *Saver) Changed() { s.dirty = true }

// Handled notes a signal that the state takes account of now.
func (s *Saver) Handled(signal unix.Signal) { s.handled = append(s.handled, signal) }

// Forget notes that the store has nothing any more.
func (s *Saver) Forget() { s.saved, s.dirty = nil, true }

// Wait tells whether an event that waits already may be handled first.
func (s *Saver) Wait(now time.Time) bool {
	return s.dirty && now.Sub(s.at) <= min(waitShare*s.took, maxWait)
}

// Due tells whether something may have changed, and takes note that it is written.
func (s *Saver) Due() bool {
	due := s.dirty
	s.dirty = false
	return due
}

// Save has the store take a record, if it differs from the last one. It is written
// whole to a file of its own before the store takes it in the place of the last one, so
// that a master that is killed at any instant leaves a whole one.
func (s *Saver) Save(r Record, store Store) error {
	began := time.Now()
	defer func() { s.at, s.took = time.Now(), time.Since(began) }()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot write the state: %w", err)
	}
	if bytes.Equal(b, s.saved) && len(s.handled) == 0 {
		return nil
	}
	f, err := File(b)
	if err != nil {
		return err
	}
	defer f.Close()
	if store.StoreState(int(f.Fd()), s.handled) == nil { // a store that fails says so itself
		s.saved, s.handled = b, nil
	}
	return nil
}
