// Package reload decides what follows an order to reload, an order to upgrade handoff
// itself, or the death of the keeper. It is pure: no I/O, no clock, no goroutine. Its
// input is an event and the time, its output actions. The fleet decides about the new
// generation; its outcome is kept here, for the status.
//
//	                    ┌─ no ──► NotReloaded
//	Idle ──order──► Asking ──yes──► Reread ──► Reload ──► (the fleet)
//	  │             (the hook)        │ the binary on disk is another one
//	  └──upgrade──────────────────► Upgrading ──ready──► Leaving
//	                                  └─ failed ──► Idle      (the keeper dies: it has failed)
//
// One operation runs at a time. Later orders wait in Pending, which is part of the state:
// the next master continues with them.
package reload

import "time"

// Phase is the current operation.
type Phase int

const (
	// Idle: none. A generation may still be starting.
	Idle Phase = iota
	// Asking: the before_reload hook has been asked.
	Asking
	// Upgrading: the binary on disk was started, and has not reported yet whether it can
	// take over.
	Upgrading
	// Leaving: another master takes over. This one decides nothing any more, unless the
	// keeper dies first.
	Leaving
)

func (p Phase) String() string {
	return [...]string{"idle", "asking", "upgrading", "leaving"}[p]
}

// Pending is what follows the phase.
type Pending struct {
	// Reload follows the hook's yes (always), or the upgrade.
	Reload bool
	// Ask: the hook must be asked before that reload.
	Ask bool
	// Upgrade comes before the reload, if the binary on disk differs from this one.
	Upgrade bool
	// UpgradeAlone is an upgrade that does not depend on the hook's answer.
	UpgradeAlone bool
	// ReplaceKeeper: the keeper died while an upgrade was under way.
	ReplaceKeeper bool
}

// Outcomes of a reload.
const (
	Running = "running"
	Served  = "served"
	Failed  = "failed"
)

// Result is the outcome of the last reload.
type Result struct {
	Generation int    // of the reload, also if it was not started; 0: there was none
	Outcome    string // Running, Served or Failed
	Reason     string // why it failed
	Stderr     []string
	Began      time.Time
	Took       time.Duration // its end
}

// State is what the next master needs.
type State struct {
	Phase   Phase
	Pending Pending
	Last    Result
	// Generation is the newest one that the fleet was told to start.
	Generation int
}

// Machine is the state and the configuration.
type Machine struct {
	State
	// Hook reports whether there is a before_reload hook.
	Hook bool

	stopping bool
	now      time.Time
	out      []Action
}

// Restore continues with the state of an earlier master, and returns its pending actions.
// An upgrade that was running has ended, since this master has started. failed is why it
// is not the master of that upgrade; "": it is, or there was none.
func Restore(s State, hook bool, failed string, now time.Time) (*Machine, []Action) {
	m := &Machine{State: s, Hook: hook, now: now}
	pending := s.Pending
	m.Phase, m.Pending = Idle, Pending{}
	switch {
	case failed != "":
		if m.Phase, m.Pending = Upgrading, pending; s.Phase == Asking { // the hook's answer is lost
			m.Pending.Reload, m.Pending.Ask = true, true
		}
		m.upgradeEnded(UpgradeEnded{Failed: failed})
	case s.Phase == Asking || pending.Reload && pending.Ask: // the answer is lost, or the hook was not asked yet
		m.order(Order{Upgrade: pending.Upgrade})
	case pending.Reload: // after the upgrade; this master has read the configuration
		m.do(Reload{})
	}
	return m, m.take()
}

// Next is the generation of an ordered reload that the fleet does not know yet; 0: none.
func (m *Machine) Next() int {
	if m.Phase == Asking || m.Phase == Upgrading && m.Pending.Reload {
		return m.Generation + 1
	}
	return 0
}

// Step takes an event and returns what to do, in order.
func (m *Machine) Step(now time.Time, e Event) []Action {
	m.now = now
	switch e := e.(type) {
	case Order:
		m.order(e)
	case Judged:
		m.judged(e)
	case Reread:
		m.reread(e)
	case UpgradeOrder:
		m.upgradeOrder()
	case UpgradeEnded:
		m.upgradeEnded(e)
	case Began:
		m.Generation = e.Generation
		if e.Generation > 1 {
			m.begin(e.Generation)
		}
	case Ended:
		if e.Generation == m.Last.Generation {
			m.end(e.Outcome, e.Reason, e.Stderr)
		}
	case KeeperDied:
		m.keeperDied()
	case Stopping:
		m.stopping = true
	default:
		panic("reload: unknown event")
	}
	return m.take()
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

func (m *Machine) take() []Action {
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) order(e Order) {
	switch {
	case m.stopping, m.Phase == Leaving:
	case m.Phase == Asking: // its orders come after the answer, and so does this
		m.Pending.Upgrade = m.Pending.Upgrade || e.Upgrade
	case m.Phase == Upgrading && m.Hook: // follows the upgrade
		m.Pending.Reload, m.Pending.Ask = true, true
		m.Pending.Upgrade = m.Pending.Upgrade || e.Upgrade
		m.begin(m.Generation + 1)
	case m.Hook:
		m.Phase = Asking
		m.Pending.Upgrade = e.Upgrade
		m.begin(m.Generation + 1)
		m.do(Ask{Generation: m.Generation + 1})
	default:
		m.do(ReadAgain(e))
	}
}

func (m *Machine) judged(e Judged) {
	if m.Phase != Asking {
		return
	}
	m.Phase = Idle
	upgrade := m.Pending.Upgrade
	m.Pending.Upgrade = false
	switch {
	case m.stopping:
		m.upgradeAlone() // reports the failure to waiting callers
	case e.Refused != "":
		m.notReloaded(ByHook, e.Refused)
		m.upgradeAlone()
	default: // only now: a refused reload changes nothing
		m.do(ReadAgain{Upgrade: upgrade || m.Pending.UpgradeAlone})
	}
}

// upgradeAlone starts the upgrade that was ordered while the hook was asked.
func (m *Machine) upgradeAlone() {
	if m.Pending.UpgradeAlone {
		m.Pending.UpgradeAlone = false
		m.startUpgrade()
	}
}

func (m *Machine) reread(e Reread) {
	switch {
	case m.stopping, m.Phase == Leaving:
		m.upgradeAlone()
	case e.Wrong != "":
		m.notReloaded(ByConfiguration, e.Wrong)
		m.upgradeAlone()
	case e.Upgrade && (e.Changed || m.Phase == Upgrading || m.Pending.UpgradeAlone):
		m.Pending.UpgradeAlone = false
		m.Pending.Reload = true
		m.begin(m.Generation + 1)
		m.startUpgrade()
	default:
		m.do(Reload{})
	}
}

func (m *Machine) upgradeOrder() {
	switch m.Phase {
	case Asking:
		m.Pending.UpgradeAlone = true
	case Idle:
		m.startUpgrade()
	}
}

func (m *Machine) startUpgrade() {
	if m.Phase != Upgrading {
		m.Phase = Upgrading
		m.do(Upgrade{})
	}
}

func (m *Machine) upgradeEnded(e UpgradeEnded) {
	if m.Phase != Upgrading {
		return
	}
	if e.Failed == "" {
		m.Phase = Leaving
		m.do(Leave{})
		return
	}
	m.Phase = Idle
	pending := m.Pending
	m.Pending = Pending{}
	again := pending.Ask && !pending.Upgrade // an order that has waited, without an upgrade
	if pending.Reload && !again {
		m.notReloaded(ByUpgrade, e.Failed)
	}
	m.do(UpgradeFailed{Reason: e.Failed})
	if again {
		m.order(Order{})
	}
	if pending.ReplaceKeeper {
		m.do(ReplaceKeeper{})
	}
}

func (m *Machine) keeperDied() {
	switch m.Phase {
	case Upgrading, Leaving: // the new master could not get its descriptors; until then nothing would be stored
		m.Phase, m.Pending.ReplaceKeeper = Upgrading, true
		m.upgradeEnded(UpgradeEnded{Failed: "the keeper has died"})
	default:
		m.do(ReplaceKeeper{})
	}
}

func (m *Machine) begin(generation int) {
	m.Last = Result{Generation: generation, Outcome: Running, Began: m.now}
}

func (m *Machine) end(outcome, reason string, stderr []string) {
	m.Last.Outcome, m.Last.Reason, m.Last.Stderr, m.Last.Took = outcome, reason, stderr, m.now.Sub(m.Last.Began)
	m.do(Finished{Result: m.Last})
}

// notReloaded ends a reload that started no generation.
func (m *Machine) notReloaded(by By, reason string) {
	m.begin(m.Generation + 1)
	said := reason
	switch by {
	case ByConfiguration:
		said = "configuration: " + reason
	case ByUpgrade:
		said = "upgrade: " + reason
	}
	m.end(Failed, said, nil)
	m.do(NotReloaded{By: by, Reason: reason, Result: m.Last})
}
