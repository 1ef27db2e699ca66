package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"handoff/internal/config"
	"handoff/internal/migrate/npm"
	"handoff/internal/migrate/pm2"
	"handoff/internal/migrate/rackman"
	"handoff/internal/trust"
)

// Source is where a configuration is read from, besides the environment.
type Source struct {
	Flags *pflag.FlagSet // of `handoff run`, parsed; those that were not given are set
	Run   *config.Run    // that they set
	Args  []string       // besides the flags: a program, a folder, or PM2's file
	Here  string         // working directory; of no meaning with Before
	// Before is what was found out last, for a master, and for a keeper that replaces
	// another; nil: nobody was before.
	Before *Program
	// Reread rereads everything, for a reload. Without it the previous configuration
	// continues: a crash puts no change into effect.
	Reread bool
}

// Resolved is the result of Resolve.
type Resolved struct {
	Program
	Said   []string // the command, as it was said
	Report string   // the fate of the keys of another tool's file; "": none
}

// Resolve reads environment and file, and resolves the program. An error that is a
// Failure is not about usage.
func (s Source) Resolve() (r Resolved, err error) {
	if s.Run.Embedded {
		config.ForgetEnviron(s.Flags)
	} else if err := config.FromEnviron(s.Flags); err != nil {
		return r, err
	}
	at := s.place()
	file, err := s.file(at)
	if err != nil {
		return r, err
	}
	if r.Said, err = s.apply(file, at.args); err != nil {
		return r, err
	}
	s.Run.EnvFileAsUser = file != nil && file.OfWorkers && file.Has("env_file")
	s.restrict()
	if s.Before != nil && !s.Reread {
		r.Program = *s.Before
		return r, nil
	}
	if file != nil {
		if at.here = file.Here; at.here == "" {
			at.here = filepath.Dir(file.Path) // what is relative in it is so to it
		}
		r.Report = file.Report
	}
	if r.Program, err = s.program(at.here, r.Said); err != nil {
		return r, Failure{err}
	}
	if file != nil {
		r.Config, r.Text, r.OfWorkers = []byte(file.Path), file.Text, file.OfWorkers
		if rackman.Is(file.Path) {
			r.Rack = []byte(filepath.Dir(file.Path))
		}
	}
	r.From, r.Name = []byte(at.from), s.name(r.Program)
	if s.Reread && s.Before != nil {
		r.Called = s.Before.Called
	}
	return r, nil
}

// place is where things are looked for.
type place struct {
	from string // where the arguments were said
	here string
	dir  string   // that was to be run; "": something else was
	file string   // that was named; "": none was
	args []string // that are left for a program
}

func (s Source) place() place {
	p := place{here: s.Here, file: s.Run.Config, args: s.Args}
	if s.Before != nil {
		if p.here = string(s.Before.From); p.here == "" {
			p.here = string(s.Before.Here)
		}
	}
	p.from = p.here
	if len(p.args) != 1 {
		return p
	}
	if pm2.Is(p.args[0]) {
		p.file, p.args = p.args[0], nil
		return p
	}
	path := p.args[0]
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.here, path)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		p.dir, p.here, p.args = path, path, nil
	}
	return p
}

// file reads the configuration file; nil: there is none.
func (s Source) file(at place) (file *config.File, err error) {
	switch before := s.Before; {
	case s.Run.Embedded && at.dir == "" && at.file == "": // not one in the current directory
	case before != nil && !s.Reread && len(before.Config) == 0:
	case before != nil && !s.Reread:
		if file, err = config.ParseFile(string(before.Config), before.Text); err == nil {
			file.OfWorkers = before.OfWorkers
		}
	case before != nil && len(before.Config) > 0:
		file, err = read(string(before.Config), s.Run)
	default:
		file, err = find(at, s.Run)
	}
	var pe *fs.PathError
	var te *trust.Error
	if errors.As(err, &pe) || errors.As(err, &te) { // missing or unreadable
		err = Failure{err}
	}
	return file, err
}

// find reads the named file, or the default one. A folder that is run must have one.
func find(at place, cfg *config.Run) (*config.File, error) {
	path := at.file
	switch {
	case path == "":
		path = filepath.Join(at.here, config.FileName)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			if at.dir == "" {
				return nil, nil
			}
			if path = rackman.Find(at.dir); path == "" && npm.Starts(at.dir) {
				path = filepath.Join(at.dir, npm.File)
			}
			if path == "" {
				return nil, Failure{fmt.Errorf("cannot run %s: it has no %s, no %s or %s, and no %s that starts something", at.dir, config.FileName, rackman.RackFile, rackman.File, npm.File)}
			}
		}
	case !filepath.IsAbs(path):
		path = filepath.Join(at.here, path)
	}
	return read(path, cfg)
}

// read reads a configuration file: ours, or RackMan's or PM2's, whose meaning is Text
// then. Of PM2's the app is chosen by cfg.
func read(path string, cfg *config.Run) (f *config.File, err error) {
	who, err := readerFor(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case pm2.Is(path):
		f, err = readPM2(path, cfg, who)
	case rackman.Is(path):
		f, err = readRackMan(path, cfg, who)
	case npm.Is(path):
		f, err = readNPM(path, cfg, who)
	default:
		f, err = readOurs(path, cfg, who)
	}
	return f, err
}

// apply sets the flags that were not given, and looks whether all is right. It returns
// what is to be run.
func (s Source) apply(file *config.File, args []string) ([]string, error) {
	if file != nil {
		if err := file.Apply(s.Flags); err != nil {
			return nil, err
		}
		if file.OfWorkers {
			if err := file.CheckHarmless(); err != nil {
				return nil, Failure{err}
			}
		}
		if len(args) == 0 {
			args = file.Command
		}
	}
	switch {
	case len(args) == 0 && file != nil:
		return nil, fmt.Errorf("nothing to run: %s has no key command, and no program was given", file.Path)
	case len(args) == 0:
		return nil, fmt.Errorf("nothing to run: give a program, for example `handoff run server.js`, or write a %s (`handoff init`)", config.FileName)
	}
	err := s.Run.Check()
	if err != nil && file != nil {
		err = fmt.Errorf("%w (flags, environment and %s together)", err, file.Path)
	}
	return args, err
}

// restrict removes what another service with the same configuration uses.
func (s Source) restrict() {
	cfg := s.Run
	if cfg.DryRun || cfg.Private {
		cfg.LogFile, cfg.PIDFile, cfg.Admin, cfg.AdminToken, cfg.Hooks, cfg.Watch, cfg.Capture, cfg.LogPrefix = "", "", "", "", nil, nil, "none", false
	}
	if cfg.DryRun {
		cfg.Workers = "1"
		if len(cfg.Ports) > 1 {
			cfg.Ports = cfg.Ports[:1]
		}
	}
}

// program finds out what runs where. In a reload it is left to the generation to find
// that something is not there.
func (s Source) program(here string, args []string) (p Program, err error) {
	dir, command, script := s.Run.WorkdirPath(here), []string(nil), 0
	if s.Reread && s.Before != nil {
		command, script, err = config.CommandLine(args, dir)
	} else if dir, err = s.Run.Workdir(here); err == nil {
		command, script, err = config.Command(args, dir)
	}
	if err != nil {
		return p, err
	}
	p = Program{Here: []byte(here), Dir: []byte(dir), Script: script}
	for _, a := range command {
		p.Args = append(p.Args, []byte(a))
	}
	return p, nil
}

// name is the service's. Who runs keeps it, also with another program.
func (s Source) name(p Program) []byte {
	switch {
	case s.Reread && s.Before != nil:
		return s.Before.Name
	case s.Run.Name != "":
		return []byte(s.Run.Name)
	case len(p.Rack) > 0:
		return []byte(NameOf(string(p.Rack)))
	case npm.Is(string(p.Config)):
		return []byte(NameOf(filepath.Dir(string(p.Config))))
	}
	return []byte(NameOf(p.Command()[p.Script]))
}

// NameOf is what a service is called after its program.
func NameOf(program string) string {
	return config.ServiceName(strings.TrimSuffix(filepath.Base(program), filepath.Ext(program)))
}
