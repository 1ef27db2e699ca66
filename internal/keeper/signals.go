package keeper

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// pending are the signals that no master has acknowledged yet, each once.
type pending struct {
	waiting []unix.Signal // arrived while no master could take them
	sent    []unix.Signal // sent to the master, and not acknowledged
}

func isStop(s unix.Signal) bool { return s == unix.SIGTERM || s == unix.SIGINT || s == unix.SIGQUIT }

// stop reports whether one of them is a stop.
func (p *pending) stop() bool {
	return slices.ContainsFunc(p.waiting, isStop) || slices.ContainsFunc(p.sent, isStop)
}

// send records a signal that was sent to the master.
func (p *pending) send(s unix.Signal) {
	if !slices.Contains(p.sent, s) { // a signal that is pending twice arrives once
		p.sent = append(p.sent, s)
	}
}

// keep records a signal for the next master; again reports that it was recorded already.
func (p *pending) keep(s unix.Signal) (again bool) {
	if slices.Contains(p.waiting, s) {
		return true
	}
	p.waiting = append(p.waiting, s)
	return false
}

// took removes signals that the master has acknowledged, by their names.
func (p *pending) took(names []string) {
	p.sent = slices.DeleteFunc(p.sent, func(s unix.Signal) bool { return slices.Contains(names, linux.SignalName(s)) })
}

// unsend keeps the unacknowledged signals of this master for the next one.
func (p *pending) unsend() {
	p.waiting, p.sent = append(p.sent, p.waiting...), nil
}

// take returns the waiting signals, for a master that can take them now.
func (p *pending) take() (all []unix.Signal) {
	all, p.waiting = p.waiting, nil
	return all
}

// handle forwards the order of a signal.
func (k *keeper) handle(s unix.Signal, now time.Time) { k.order(s, k.terminal.means(s, now), now) }

// order forwards an order, if there is one.
func (k *keeper) order(s, means unix.Signal, now time.Time) {
	if means == 0 {
		return
	}
	if means != s {
		k.say("the terminal has closed: stopping the service, with drain (nohup or setsid keep it running)")
	}
	k.forward(means, now)
}

// forward forwards a signal, or keeps it until a master can take it.
func (k *keeper) forward(s unix.Signal, now time.Time) {
	stop := isStop(s)
	if stop && k.stopAsked.IsZero() {
		k.stopAsked = now
	}
	if stop && k.binaries.current == nil && k.master.pidfd >= 0 { // nothing serves yet
		k.master.stopping = true
		unix.PidfdSendSignal(k.master.pidfd, s, nil, 0) // it is dying, or not ready yet
	}
	if k.master.ready && unix.PidfdSendSignal(k.master.pidfd, SignalBase+s, nil, 0) == nil {
		k.signals.send(s)
	} else if again := k.signals.keep(s); again {
		if stop { // a second stop, and no master is running: stop immediately
			k.stopAt = now
		}
		return
	}
	if stop && k.binaries.current != nil && k.stopAt.IsZero() {
		k.stopAt = now.Add(k.waits.Stop)
	}
}
