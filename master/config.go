package master

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/process"
)

// ReadyWhen is what counts as ready.
type ReadyWhen string

// The notices of readiness.
const (
	Listening ReadyWhen = "listening" // the program listens on its first address
	Started   ReadyWhen = "started"   // it has booted
	Ready     ReadyWhen = "ready"     // it says so: process.send({cmd:'ready'}) or process.send('ready')
)

// Live is what may change while a master runs: at a reload.
type Live struct {
	Fleet    fleet.Config
	MaxSlots int // that there may be, scaled by hand
	// Balance is of all addresses. Between Shared and others it is not changed.
	Balance handoff.Balance
	Command process.Command
	// DrainSignal is what drain is under the bind contract.
	DrainSignal  unix.Signal
	DrainMessage string // that Node programs get in a drain; "": none
	SlotVariable string // another name for WORKER_ID in their environment; "": none
	Ports        []int  // of the slots, for PORT and port; nil: none
	// Holds reports whether a TCP address that a worker binds is to be held, under
	// the bind contract.
	Holds func(netip.AddrPort) bool
	// Allow reports whether a worker of another user than handoff's may have a privileged
	// port; nil: none.
	Allow      func(netip.AddrPort) bool
	ReadyWhen  ReadyWhen
	QuietGrace time.Duration // in which a worker may take note of what it has accepted; part of quiet
	// Conditions are what each worker starts under; of CPUs, slot i has the i-th,
	// over and over.
	Conditions  bindintercept.Conditions
	MaxMemory   int64         // of a worker's process group, resident, in bytes; 0: any
	MaxRequests int           // that a worker serves, where it says so; 0: any number
	StallKill   time.Duration // after which a worker that stalls is replaced; 0: never
	// BeforeReload and BeforeReady may refuse a reload, or a worker that is ready;
	// nil: nobody does.
	BeforeReload Veto
	BeforeReady  Veto
	// Environ adds to the environment of each worker; nil adds nothing.
	Environ func(env []string) []string
	// Program is what the next master is to know of all this, see GiveProgram: what
	// it has changed to since is put into effect by a reload, not by a crash.
	Program []byte
}

// Config is what a master needs to know.
type Config struct {
	Name    string // of the service, for people
	Version string // of handoff
	PID     int    // that people know
	// Control is called when the master runs, with how to speak to it, and what
	// it returns when the master ends: follows tells that another takes over.
	Control func(Control) (stop func(follows bool))
	Live
	Contract Contract
	// Listen is given to every worker at its start, under any contract, by systemd's
	// protocol (sd_listen_fds(3)).
	Listen []listeners.Listen
	// Passed are sockets that a service manager has passed; Run owns them.
	Inherited []cmsg.Named
	// Keeper is the address of the keeper's notify socket, "" for none; Instance
	// tells its processes from others. Store is what it has kept of a master
	// before, which has died for Reason, as Restarts others have; Run owns it.
	Keeper   string
	Instance string
	// RuntimeDir is where the workers' notify sockets are made, absolute; "": where
	// there is room.
	RuntimeDir string
	// SignalBase is what the keeper adds to the numbers of signals that it passes
	// on. Others are left alone while there is a keeper.
	SignalBase int
	Store      []cmsg.Named
	Restarts   int
	Reason     string
	// ReplaceKeeper starts a new keeper with what the one before had, which ends this
	// process when it takes over, and returns if it does not. ManagerStores: a service
	// manager keeps it all, and starts a new keeper itself.
	ReplaceKeeper func(named []cmsg.Named, program []byte) error
	ManagerStores bool
	// Upgrade starts the binary that is on disk now with the state, and returns
	// nil when that can take over: this master ends then. Changed tells whether it
	// is another one. Upgraded tells that this master has taken over so.
	Upgrade  func(state []byte) error
	Changed  func() bool
	Upgraded bool
	// UpWatchdog is how often a service manager above wants a sign of life; 0:
	// never.
	UpWatchdog time.Duration
	// Reread reads the configuration again. later names what has changed and
	// needs a new handoff.
	Reread     func() (live Live, later []string, err error)
	DryRun     bool // every address is one of loopback's where nobody else is: the program is only tried
	NoSteering bool // as if the kernel refused the steering program
	// Admin serves a listener, which it owns, and returns how to stop; nil: there
	// is none. AdminAddr is where it listens: the keeper has the socket, so that
	// nobody is refused between two masters.
	Admin     func(net.Listener, Control) (stop func())
	AdminAddr string
	// WorkerEvents records a message of a Node worker, a line of JSON, from any
	// goroutine; it may block if wait is set: the worker waits then. May be nil.
	WorkerEvents func(line []byte, wait bool)
	// Finish is called at the end of everything, when all has been logged; may be nil.
	Finish func()
	// Calm is called when a generation serves and little is to do; may be nil.
	Calm   func()
	Log    *slog.Logger
	Reopen func() error // SIGUSR1
	Stdout process.Stdout
	// Output returns where the output of a worker goes that is read here, each from one
	// goroutine; nil: handoff's own.
	Output func(slot, pid, generation int) (stdout, stderr io.Writer)
	// Losses is given what hears of output that could not be passed on, or is again (a
	// nil error), and tells whether it has taken note; nil: nothing tells.
	Losses func(hear func(to string, err error, lines int) (taken bool))
}
