// Package service converts a configuration into that of a master. Its input is flags,
// environment and file; its output is the program and its place (Program), what can
// change while it runs (Live), and hooks, watched files and captured output. It starts
// nothing.
package service

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Failure is an error that is not one of usage: something is missing or cannot be read.
type Failure struct{ Err error }

func (f Failure) Error() string { return f.Err.Error() }
func (f Failure) Unwrap() error { return f.Err }

// Program is the meaning of the arguments of `handoff run` when they were last read. A
// master that starts later does not require the directory or the script to exist: only a
// reload does. It is JSON in the record: fields are added, never changed. Bytes, since
// none of it need be UTF-8.
type Program struct {
	From   []byte   // working directory of `handoff run`; a record of an older version has none: Here, then
	Here   []byte   // what relative paths are relative to: From, or the configuration file's folder
	Dir    []byte   // of the workers
	Args   [][]byte // the whole command line of a worker
	Script int      // which of them is the script; 0: none
	Name   []byte   // of the service
	// Called is what it would be called if that name were free; empty: Name.
	Called []byte `json:",omitempty"`
	Rack   []byte // RackMan's folder, if it is one
	Config []byte // path of the configuration file, if there is one
	Text   []byte // what it had
	// OfWorkers: the workers' user can write the file. A record without it is of a version
	// that did not look.
	OfWorkers bool `json:",omitempty"`
}

// Decode decodes the output of Encode; false: there is no program.
func Decode(text []byte) (p Program, ok bool) {
	err := json.Unmarshal(text, &p)
	return p, err == nil && len(p.Args) > p.Script && p.Script >= 0 && len(p.Dir) > 0
}

// Encode encodes it for the next master.
func (p Program) Encode() ([]byte, error) { return json.Marshal(p) }

// Identity is what the service is called whatever other services run, so that workers that
// have outlived it are found.
func (p Program) Identity() string {
	if len(p.Called) > 0 {
		return string(p.Called)
	}
	return string(p.Name)
}

// Command is the command line of a worker.
func (p Program) Command() (args []string) {
	for _, a := range p.Args {
		args = append(args, string(a))
	}
	return args
}

// Path makes a path absolute that is relative to the directory in which handoff was
// started; "" stays "".
func (p Program) Path(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(string(p.Here), path)
}

// hookFile is RackMan's hook script.
const hookFile = ".rackhooks.js"

// HookScript is RackMan's .rackhooks.js, in a folder that RackMan would run: of the
// version, else of the folder. "": not such a folder.
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
