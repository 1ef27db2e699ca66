package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"handoff/internal/config"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/migrate/pm2"
	"handoff/internal/migrate/rackman"
)

// envProgram tells masters what the keeper has found out.
const envProgram = "HANDOFF_PROGRAM"

// program is what the arguments of `handoff run` meant when it was started. A
// master that starts later needs neither the directory nor the script to be there:
// only a reload does. Bytes, since none of it need be UTF-8.
type program struct {
	Here   []byte   // working directory of `handoff run`
	Dir    []byte   // of the workers
	Args   [][]byte // the whole command line of a worker
	Script int      // which of them is the script; 0: none
	Name   []byte   // of the service
	Rack   []byte   // RackMan's folder, if it is one
	Config []byte   // path of the configuration file, if there is one
	Text   []byte   // what it had
}

// configure reads environment and file, and finds out what is meant. A master, and
// a keeper that comes after another, take what was found out last.
func configure(flags *pflag.FlagSet, cfg *config.Run, args []string, asMaster bool) (p program, command []string, err error) {
	return configured(flags, cfg, args, asMaster, false)
}

// reconfigure is configure for a master that runs: what is wrong now is an error.
func reconfigure(flags *pflag.FlagSet, cfg *config.Run, args []string) (program, error) {
	p, _, err := configured(flags, cfg, args, true, true)
	return p, err
}

func configured(flags *pflag.FlagSet, cfg *config.Run, args []string, asMaster, again bool) (p program, command []string, err error) {
	if err := config.FromEnviron(flags); err != nil {
		return p, nil, err
	}
	var inherited program
	isMaster := false
	if asMaster || os.Getenv(envReplaces) != "" {
		if inherited, isMaster, err = inheritedProgram(asMaster); err != nil {
			return p, nil, failed{err}
		}
	}
	here, err := os.Getwd() // $PWD where that is right
	if isMaster {
		here, err = string(inherited.Here), nil
	}
	if err != nil {
		return p, nil, failed{fmt.Errorf("cannot find the working directory: %w", err)}
	}
	dir, given := "", cfg.Config
	if len(args) == 1 && pm2.Is(args[0]) {
		given, args = args[0], nil
	}
	if len(args) == 1 {
		path := args[0]
		if !filepath.IsAbs(path) {
			path = filepath.Join(here, path)
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			dir, here, args = path, path, nil
		}
	}
	var file *config.File
	switch {
	case cfg.Embedded && dir == "" && given == "": // a file where the caller happens to be is not meant
	case isMaster && !again && len(inherited.Config) == 0:
	case isMaster && !again: // as it was when it was read last: a crash puts nothing new into effect
		file, err = config.ParseFile(string(inherited.Config), inherited.Text)
	case isMaster && len(inherited.Config) > 0:
		file, err = readFile(string(inherited.Config), cfg)
	default:
		file, err = findFile(cfg, given, here, dir)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) { // it is not there, or cannot be read
		return p, nil, failed{err}
	}
	if err != nil {
		return p, nil, err
	}
	if file != nil {
		here = filepath.Dir(file.Path) // what is relative in it is so to it
		if err := file.Apply(flags); err != nil {
			return p, nil, err
		}
		if len(args) == 0 {
			args = file.Command
		}
	}
	if len(args) == 0 {
		if file != nil {
			return p, nil, fmt.Errorf("nothing to run: %s has no key command, and no program was given", file.Path)
		}
		return p, nil, errors.New("nothing to run: give a program, for example `handoff run server.js`, or write a handoff.toml (`handoff init`)")
	}
	if err := cfg.Check(); err != nil {
		if file != nil {
			err = fmt.Errorf("%w (flags, environment and %s together)", err, file.Path)
		}
		return p, nil, err
	}
	if cfg.Scratch || cfg.Private { // beside the one that runs: what is that one's is left alone
		cfg.LogFile, cfg.PIDFile, cfg.Admin, cfg.AdminToken, cfg.Hooks, cfg.Watch, cfg.Capture, cfg.LogPrefix = "", "", "", "", nil, nil, "none", false
	}
	if cfg.Scratch {
		cfg.Workers = "1"
		if len(cfg.Ports) > 1 {
			cfg.Ports = cfg.Ports[:1]
		}
	}
	if isMaster && !again {
		return inherited, args, nil
	}
	if file != nil && file.Report != "" && !asMaster {
		fmt.Fprintf(os.Stderr, "handoff: %s: %s\n", filepath.Base(file.Path), file.Report)
	}
	if p, err = resolve(cfg, here, args, again); err != nil {
		return p, nil, failed{err}
	}
	if file != nil {
		p.Config, p.Text = []byte(file.Path), file.Text
		if filepath.Base(file.Path) != config.FileName && strings.HasPrefix(filepath.Base(file.Path), ".rack") {
			p.Rack = []byte(filepath.Dir(file.Path))
		}
	}
	switch p.Name = []byte(cfg.Name); {
	case again: // who runs keeps its name, also with another program
		p.Name = inherited.Name
	case cfg.Name == "" && len(p.Rack) > 0:
		p.Name = []byte(serviceName(string(p.Rack)))
	case cfg.Name == "":
		p.Name = []byte(serviceName(p.command()[p.Script]))
	}
	return p, args, nil
}

// findFile reads the configuration file, if there is one. dir is what was to be
// run, if that is a directory, which must have one.
func findFile(cfg *config.Run, path, here, dir string) (*config.File, error) {
	switch {
	case path == "":
		path = filepath.Join(here, config.FileName)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			if dir == "" {
				return nil, nil
			}
			if path = rackman.Find(dir); path == "" {
				return nil, failed{fmt.Errorf("cannot run %s: there is no %s in it, and no %s or %s", dir, config.FileName, rackman.RackFile, rackman.File)}
			}
		}
	case !filepath.IsAbs(path):
		path = filepath.Join(here, path)
	}
	return readFile(path, cfg)
}

// readFile reads a configuration file: ours, or RackMan's or PM2's, whose meaning is
// Text then. Of PM2's the app is chosen by cfg.
func readFile(path string, cfg *config.Run) (*config.File, error) {
	switch {
	case pm2.Is(path):
		app, err := pm2.Read(path, cfg.Only, cfg.PM2Env)
		if err != nil {
			return nil, err
		}
		f, err := config.ParseFile(path, app.TOML)
		if err == nil {
			f.Report = strings.Join(app.Report(), "; ")
		}
		return f, err
	case rackman.Is(path):
		text, err := rackman.Read(path, cfg.RackVersion)
		if err != nil {
			return nil, err
		}
		return config.ParseFile(path, text)
	}
	return config.ReadFile(path)
}

// resolve finds out what runs where. later leaves it to the generation to find that
// something is not there.
func resolve(cfg *config.Run, here string, args []string, later bool) (p program, err error) {
	dir, command, script := cfg.WorkdirPath(here), []string(nil), 0
	if later {
		command, script, err = config.CommandLine(args, dir)
	} else if dir, err = cfg.Workdir(here); err == nil {
		command, script, err = config.Command(args, dir)
	}
	if err != nil {
		return p, err
	}
	p = program{Here: []byte(here), Dir: []byte(dir), Script: script}
	for _, a := range command {
		p.Args = append(p.Args, []byte(a))
	}
	return p, nil
}

// envReplaces marks a keeper that comes after one that was killed.
const envReplaces = "HANDOFF_REKEPT"

// inheritedProgram is what the master before has read last, or what the keeper has
// passed.
func inheritedProgram(asMaster bool) (p program, ok bool, err error) {
	text := []byte(os.Getenv(envProgram))
	if notify := os.Getenv("NOTIFY_SOCKET"); asMaster && notify != "" {
		if err := fdstore.Announce(notify); err != nil { // a candidate is not believed before; others need not say it
			return p, false, err
		}
		kept, err := fdstore.ReadProgram(notify)
		if err != nil {
			return p, false, err
		}
		if kept != nil {
			text = kept
		}
	}
	err = json.Unmarshal(text, &p)
	return p, err == nil && len(p.Args) > p.Script && p.Script >= 0 && len(p.Dir) > 0, nil
}

// hookScript is RackMan's .rackhooks.js, in a folder that RackMan would run: of the
// version, else of the folder.
func (p program) hookScript() string {
	if len(p.Rack) == 0 {
		return ""
	}
	for _, dir := range [][]byte{p.Dir, p.Rack} {
		path := filepath.Join(string(dir), ".rackhooks.js")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(string(p.Rack), ".rackhooks.js")
}

func (p program) pass() error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.Setenv(envProgram, string(b))
}

func (p program) command() (args []string) {
	for _, a := range p.Args {
		args = append(args, string(a))
	}
	return args
}
