package keeper

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// pending are the signals of which no master has taken note yet, each once.
type pending struct {
	waiting []unix.Signal // came while no master could take them
	sent    []unix.Signal // were sent to the master, which has not said that it took them
}

func isStop(s unix.Signal) bool { return s == unix.SIGTERM || s == unix.SIGINT || s == unix.SIGQUIT }

// stop tells whether one of them is a stop.
func (p *pending) stop() bool {
	return slices.ContainsFunc(p.waiting, isStop) || slices.ContainsFunc(p.sent, isStop)
}

// send notes a signal that the master was sent.
func (p *pending) send(s unix.Signal) {
	if !slices.Contains(p.sent, s) { // one that is pending twice comes once
		p.sent = append(p.sent, s)
	}
}

// keep notes a signal for the next master; again tells that it was noted already.
func (p *pending) keep(s unix.Signal) (again bool) {
	if slices.Contains(p.waiting, s) {
		return true
	}
	p.waiting = append(p.waiting, s)
	return false
}

// took forgets signals of which the master has taken note, by their names.
func (p *pending) took(names []string) {
	p.sent = slices.DeleteFunc(p.sent, func(s unix.Signal) bool { return slices.Contains(names, linux.SignalName(s)) })
}

// unsend leaves to the next master what this one was sent and may not have done.
func (p *pending) unsend() {
	p.waiting, p.sent = append(p.sent, p.waiting...), nil
}

// take returns what waits, for a master that can take it now.
func (p *pending) take() (all []unix.Signal) {
	all, p.waiting = p.waiting, nil
	return all
}

// heed passes on what a signal orders.
func (k *keeper) heed(s unix.Signal, now time.Time) { k.order(s, k.terminal.means(s, now), now) }

// order passes on what a signal means, if that is anything.
func (k *keeper) order(s, means unix.Signal, now time.Time) {
	if means == 0 {
		return
	}
	if means != s {
		k.say("the terminal has closed: stopping the service, with drain (nohup or setsid keep it running)")
	}
	k.forward(means, now)
}

// forward passes a signal on, or keeps it until a master can take it.
func (k *keeper) forward(s unix.Signal, now time.Time) {
	stop := isStop(s)
	if stop && k.stopAsked.IsZero() {
		k.stopAsked = now
	}
	if stop && k.binary == nil && k.master.pidfd >= 0 { // nothing serves yet
		k.master.stopping = true
		unix.PidfdSendSignal(k.master.pidfd, s, nil, 0) // it dies, or is about to be ready
	}
	if k.master.ready && unix.PidfdSendSignal(k.master.pidfd, SignalBase+s, nil, 0) == nil {
		k.signals.send(s)
	} else if again := k.signals.keep(s); again {
		if stop { // once more, and no master there: it is done at once
			k.stopAt = now
		}
		return
	}
	if stop && k.binary != nil && k.stopAt.IsZero() {
		k.stopAt = now.Add(k.waits.Stop)
	}
}
