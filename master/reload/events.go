package reload

// Event is an input of Step: one of the types below.
type Event interface{ event() }

type (
	// Order requests that the code on disk is put into service; with Upgrade, a changed
	// binary of handoff first.
	Order struct{ Upgrade bool }
	// Judged is the hook's answer; Refused is the reason, "" is a yes.
	Judged struct{ Refused string }
	// Reread answers ReadAgain. Wrong is the error of the configuration, which then has
	// changed nothing; Changed: the binary on disk differs.
	Reread struct {
		Upgrade bool
		Wrong   string
		Changed bool
	}
	// UpgradeOrder requests an upgrade to handoff's binary on disk, without a reload.
	UpgradeOrder struct{}
	// UpgradeEnded answers Upgrade: the new binary can take over, or the reason why not.
	UpgradeEnded struct{ Failed string }
	// Began: the fleet has started a generation.
	Began struct{ Generation int }
	// Ended is the outcome of one: Served or Failed.
	Ended struct {
		Generation int
		Outcome    string
		Reason     string
		Stderr     []string
	}
	// KeeperDied: the keeper, whose pid users know, has died.
	KeeperDied struct{}
	// Stopping: the service is stopping, and nothing is ordered any more.
	Stopping struct{}
)

func (Order) event()        {}
func (Judged) event()       {}
func (Reread) event()       {}
func (UpgradeOrder) event() {}
func (UpgradeEnded) event() {}
func (Began) event()        {}
func (Ended) event()        {}
func (KeeperDied) event()   {}
func (Stopping) event()     {}

// Action is an output of Step: one of the types below.
type Action interface{ action() }

// By is what has prevented a reload.
type By int

// What can prevent a reload.
const (
	ByHook By = iota
	ByConfiguration
	ByUpgrade
)

type (
	// Ask asks the hook about the reload to this generation; answer Judged.
	Ask struct{ Generation int }
	// ReadAgain rereads the configuration; answer Reread with the same Upgrade.
	ReadAgain struct{ Upgrade bool }
	// Reload asks the fleet for a new generation; answer Began and Ended.
	Reload struct{}
	// Upgrade starts the binary on disk; answer UpgradeEnded.
	Upgrade struct{}
	// UpgradeFailed reports it to waiting callers.
	UpgradeFailed struct{ Reason string }
	// NotReloaded reports a reload that was not started.
	NotReloaded struct {
		By     By
		Reason string
		Result Result
	}
	// Finished reports the outcome of a reload.
	Finished struct{ Result Result }
	// ReplaceKeeper starts a new keeper. It ends this process if that works.
	ReplaceKeeper struct{}
	// Leave ends this master: another one takes over.
	Leave struct{}
)

func (Ask) action()           {}
func (ReadAgain) action()     {}
func (Reload) action()        {}
func (Upgrade) action()       {}
func (UpgradeFailed) action() {}
func (NotReloaded) action()   {}
func (Finished) action()      {}
func (ReplaceKeeper) action() {}
func (Leave) action()         {}
