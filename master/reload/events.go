package reload

// Event is something that has happened: one of the types below.
type Event interface{ event() }

type (
	// Order asks for the code of now to be put into service; with Upgrade, a changed
	// binary of handoff's first.
	Order struct{ Upgrade bool }
	// Judged is the hook's answer; Refused is why not, "" is a yes.
	Judged struct{ Refused string }
	// Reread answers ReadAgain: Wrong says what is wrong with the configuration, which
	// then has changed nothing; Changed, that the binary on disk is another one.
	Reread struct {
		Upgrade bool
		Wrong   string
		Changed bool
	}
	// UpgradeOrder asks for handoff's binary on disk, without a reload.
	UpgradeOrder struct{}
	// UpgradeEnded answers Upgrade: the new binary can take over, or not, and why.
	UpgradeEnded struct{ Failed string }
	// Began says that the fleet has taken up a generation.
	Began struct{ Generation int }
	// Ended says what came of one: Served or Failed.
	Ended struct {
		Generation int
		Outcome    string
		Reason     string
		Stderr     []string
	}
	// KeeperDied says that the process that everybody knows is gone.
	KeeperDied struct{}
	// Stopping says that the service has been told to end: nothing is ordered any more.
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

// Action is something to do: one of the types below.
type Action interface{ action() }

// By is who or what has kept a reload from beginning.
type By int

// What keeps a reload from beginning.
const (
	ByHook By = iota
	ByConfiguration
	ByUpgrade
)

type (
	// Ask asks the hook about the reload that will be this generation; answer Judged.
	Ask struct{ Generation int }
	// ReadAgain reads the configuration again; answer Reread with the same Upgrade.
	ReadAgain struct{ Upgrade bool }
	// Reload asks the fleet for a new generation; answer Began and Ended.
	Reload struct{}
	// Upgrade starts the binary on disk; answer UpgradeEnded.
	Upgrade struct{}
	// UpgradeFailed tells who waits for it.
	UpgradeFailed struct{ Reason string }
	// NotReloaded reports a reload that has not begun.
	NotReloaded struct {
		By     By
		Reason string
		Result Result
	}
	// Finished reports what came of a reload.
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
