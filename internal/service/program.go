// Package service makes of a configuration what a master runs by. Flags, environment
// and file come in; what runs where (Program), what may change while it runs (Live),
// and what goes beside it (hooks, watched files, captured output) comes out. It starts
// nothing.
package service

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Failure is an error that is not about how handoff was called: something is not there,
// or cannot be read.
type Failure struct{ Err error }

func (f Failure) Error() string { return f.Err.Error() }
func (f Failure) Unwrap() error { return f.Err }

// Program is what the arguments of `handoff run` meant when they were read last. A
// master that starts later needs neither the directory nor the script to be there:
// only a reload does. It is JSON in the record that masters leave: fields are added,
// never changed. Bytes, since none of it need be UTF-8.
type Program struct {
	From   []byte   // working directory of `handoff run`; a record of an older version has none: Here, then
	Here   []byte   // what relative paths are relative to: From, or the configuration file's folder
	Dir    []byte   // of the workers
	Args   [][]byte // the whole command line of a worker
	Script int      // which of them is the script; 0: none
	Name   []byte   // of the service
	Rack   []byte   // RackMan's folder, if it is one
	Config []byte   // path of the configuration file, if there is one
	Text   []byte   // what it had
	// OfWorkers: the workers' user can write the file. A record without it is of a version
	// that did not look.
	OfWorkers bool `json:",omitempty"`
}

// Decode reads what Encode has written; false: there is nothing that can run.
func Decode(text []byte) (p Program, ok bool) {
	err := json.Unmarshal(text, &p)
	return p, err == nil && len(p.Args) > p.Script && p.Script >= 0 && len(p.Dir) > 0
}

// Encode writes it for the next master.
func (p Program) Encode() ([]byte, error) { return json.Marshal(p) }

// Command is the command line of a worker.
func (p Program) Command() (args []string) {
	for _, a := range p.Args {
		args = append(args, string(a))
	}
	return args
}

// Path makes a path absolute that was said relative to where handoff was started; ""
// stays.
func (p Program) Path(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(string(p.Here), path)
}

// hookFile is RackMan's script of hooks.
const hookFile = ".rackhooks.js"

// HookScript is RackMan's .rackhooks.js, in a folder that RackMan would run: of the
// version, else of the folder. "": it is no such folder.
func (p Program) HookScript() string {
	if len(p.Rack) == 0 {
		return ""
	}
	for _, dir := range [][]byte{p.Dir, p.Rack} {
		path := filepath.Join(string(dir), hookFile)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(string(p.Rack), hookFile)
}
