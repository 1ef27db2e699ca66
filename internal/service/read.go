package service

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"handoff/internal/config"
	"handoff/internal/linux"
	"handoff/internal/migrate/npm"
	"handoff/internal/migrate/pm2"
	"handoff/internal/migrate/rackman"
	"handoff/internal/trust"
)

// readerFor is who reads a configuration. The user that workers run as is the one that
// flags and environment have said: the file itself does not count.
func readerFor(cfg *config.Run) (trust.Reader, error) {
	r := trust.Reader{UID: os.Geteuid()}
	c, err := cfg.Conditions()
	if err != nil {
		return r, err
	}
	if c.User != nil {
		r.User, r.Group = c.User.UID, c.User.GID
	}
	return r, nil
}

func readOurs(path string, cfg *config.Run, who trust.Reader) (*config.File, error) {
	read := who.ReadFile
	if cfg.TrustConfig {
		read = func(path string) ([]byte, bool, error) {
			b, err := linux.ReadFile(path, trust.MaxSize)
			return b, false, err
		}
	}
	text, workers, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	f, err := config.ParseFile(path, text)
	if err == nil {
		f.OfWorkers = workers
	}
	return f, err
}

// readPM2 has a file that the workers' user can write evaluated as that user.
func readPM2(path string, cfg *config.Run, who trust.Reader) (*config.File, error) {
	workers, err := check(path, cfg, who)
	if err != nil {
		return nil, err
	}
	as := pm2.Self()
	if workers {
		c, err := cfg.Conditions()
		if err != nil {
			return nil, err
		}
		as = pm2.As(c.User.UID, c.User.GID, c.User.Groups)
	}
	app, err := pm2.Read(path, cfg.Only, cfg.PM2Env, as)
	if err != nil {
		return nil, err
	}
	f, err := config.ParseFile(path, app.TOML)
	if err == nil {
		f.Report, f.OfWorkers = strings.Join(app.Report(), "; "), workers
	}
	return f, err
}

func readRackMan(path string, cfg *config.Run, who trust.Reader) (*config.File, error) {
	workers, err := check(path, cfg, who)
	if err != nil {
		return nil, err
	}
	m, err := rackman.Read(path, cfg.RackVersion)
	if errors.Is(err, rackman.ErrNothing) {
		return nil, Failure{err}
	} else if err != nil {
		return nil, err
	}
	if _, serr := os.Stat(m.Path); serr == nil {
		more, err := check(m.Path, cfg, who)
		if err != nil {
			return nil, err
		}
		workers = workers || more
	}
	f, err := config.ParseFile(m.Path, m.Text)
	if err == nil {
		f.Path, f.Here, f.Report, f.OfWorkers = path, m.Here, m.Report, workers
	}
	return f, err
}

// readNPM reads what a package.json starts.
func readNPM(path string, cfg *config.Run, who trust.Reader) (*config.File, error) {
	workers, err := check(path, cfg, who)
	if err != nil {
		return nil, err
	}
	text, err := npm.Read(path)
	if err != nil {
		return nil, Failure{err}
	}
	f, err := config.ParseFile(path, text)
	if err == nil {
		f.OfWorkers = workers
	}
	return f, err
}

// check looks who can write a file that is read by its name.
func check(path string, cfg *config.Run, who trust.Reader) (workers bool, err error) {
	if cfg.TrustConfig {
		return false, nil
	}
	if workers, err = who.Check(path); err != nil {
		return false, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return workers, nil
}
