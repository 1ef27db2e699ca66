package main

import (
	"fmt"
	"log/slog"
	"net"

	"handoff/internal/admin"
	"handoff/internal/config"
	"handoff/internal/service"
	"handoff/master"
)

// publicOf is what serves --admin; nil: nothing does.
func publicOf(cfg *config.Run, what service.Program, log *slog.Logger) (func(net.Listener, master.Control) func(), error) {
	if cfg.Admin == "" {
		return nil, nil
	}
	if err := admin.CheckAddr(cfg.Admin, cfg.AdminToken != ""); err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	p := admin.Public{Addr: cfg.Admin}
	if path := what.Path(cfg.AdminToken); path != "" {
		var err error
		if p.Token, err = admin.ReadToken(path); err != nil {
			return nil, fmt.Errorf("--admin-token-file: %w", err)
		}
	}
	return func(l net.Listener, c master.Control) func() { return p.Serve(l, c, log) }, nil
}

// adminAddr is an address as a listener has it.
func adminAddr(addr string) string {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return addr
	}
	return a.String()
}
