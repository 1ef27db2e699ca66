package logging

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// failing is a log that cannot be written: the disk is full, its reader is gone.
type failing struct {
	err    error     // of the last line that was lost; nil: none was, or it was said
	at     time.Time // when
	lines  int       // lost since it began
	broken bool      // the last line was written in part
}

// calm is how long every line must have been written before that is said: a full disk has
// room for a short line now and then.
const calm = time.Second

// put writes a line to the file; mu is held. One that cannot be written is counted, and that
// it is so is said on stderr, once, if the log goes elsewhere.
func (l *Log) put(line []byte, now time.Time) {
	f := &l.failing
	if f.broken {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.file.Write(line)
	if err == nil {
		f.broken = false
		return
	}
	if n > 0 {
		f.broken = n > 1 || !f.broken // else the line before was ended
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = errno
	}
	if f.err == nil && l.file != os.Stderr {
		fmt.Fprintf(os.Stderr, "handoff: cannot write the log file %s: %v; lines are lost until it can be written (handoff events has the last ones)\n", l.path, err)
	}
	f.err, f.at = err, now
	f.lines++
}

// over returns how many lines were lost, and why, when that has been over for a while; 0:
// nothing is to be said.
func (f *failing) over(now time.Time) (lines int, err error) {
	if !f.due(now) {
		return 0, nil
	}
	lines, err = f.lines, f.err
	f.lines, f.err = 0, nil
	return lines, err
}

func (f *failing) due(now time.Time) bool { return f.err != nil && now.Sub(f.at) >= calm }
