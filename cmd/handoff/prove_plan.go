package main

import (
	"errors"
	"fmt"
	"handoff/internal/load"
	"handoff/internal/prove"
	"net"
	"os"
)

// check finds wrong values and combinations that the flags' types allow.
func (p *proof) check(args int) error {
	for _, n := range []struct {
		flag  string
		value int
	}{{"reloads", p.reloads}, {"scale", p.scale}, {"upgrade", p.upgrade}, {"kill-worker", p.killWorker}, {"kill-master", p.killMaster}} {
		if n.value < 0 {
			return fmt.Errorf("--%s must not be negative", n.flag)
		}
	}
	switch {
	case p.rate < 0:
		return errors.New("--rate must not be negative")
	case p.clients < 1:
		return errors.New("--clients must be at least 1")
	case p.duration <= 0 || p.timeout <= 0 || p.wait <= 0:
		return errors.New("--duration, --timeout and --wait must be greater than 0")
	case p.tcp && p.request != "":
		return errors.New("--tcp and --request exclude each other")
	case p.against != "" && args > 0:
		return errors.New("--against is the whole command line of the other tool; leave out the program")
	case p.against != "" && p.address == "":
		return errors.New("--against requires --address HOST:PORT, where the other tool serves")
	case p.against == "" && p.againstReload != "":
		return errors.New("--against-reload requires --against")
	}
	if p.address != "" {
		if _, _, err := net.SplitHostPort(p.address); err != nil {
			return fmt.Errorf("--address %s: want HOST:PORT", p.address)
		}
	}
	return nil
}

// plan returns the disturbances and the load. args is the number of arguments.
func (p *proof) plan(args int) (plan prove.Plan, err error) {
	plan = prove.Plan{Duration: p.duration, Rate: p.rate, Clients: p.clients, Timeout: p.timeout, Echo: p.tcp, Times: map[prove.Action]int{
		prove.Reload: p.reloads, prove.Scale: p.scale, prove.Upgrade: p.upgrade, prove.KillWorker: p.killWorker, prove.KillMaster: p.killMaster}}
	if p.broken {
		plan.Times[prove.Broken] = 1
	}
	if p.rate == 0 {
		plan.Rate = -1
	}
	if p.against != "" {
		if err := p.otherTool(plan.Times); err != nil {
			return plan, err
		}
	}
	if err := p.check(args); err != nil || p.request == "" {
		return plan, err
	}
	text, err := os.ReadFile(p.request)
	if err != nil {
		return plan, failed{fmt.Errorf("--request: %w", err)}
	}
	if plan.Requests, err = load.ParseRequests(text); err != nil {
		return plan, fmt.Errorf("--request %s: %w", p.request, err)
	}
	return plan, nil
}

// otherTool removes the disturbances that only handoff has. It is an error if one was
// set on the command line.
func (p *proof) otherTool(times map[prove.Action]int) error {
	for _, only := range []struct {
		flag   string
		action prove.Action
	}{{"scale", prove.Scale}, {"upgrade", prove.Upgrade}, {"broken-deploy", prove.Broken}, {"kill-worker", prove.KillWorker}} {
		if p.set[only.flag] && times[only.action] > 0 {
			return fmt.Errorf("--%s is for handoff only, not for --against", only.flag)
		}
		times[only.action] = 0
	}
	if !p.set["kill-master"] {
		times[prove.KillMaster] = 0
	}
	if times[prove.KillMaster] > 1 {
		return errors.New("--kill-master must be at most 1 with --against: the other tool does not restart")
	}
	if p.againstReload == "" {
		times[prove.Reload] = 0
	}
	return nil
}
