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
	"handoff/internal/takeover"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/process"
)

// ReadyWhen is what counts as ready.
type ReadyWhen string

// The values of ReadyWhen.
const (
	Listening ReadyWhen = "listening" // the program listens on its addresses
	Started   ReadyWhen = "started"   // the program has booted
	Ready     ReadyWhen = "ready"     // it reports it: process.send({cmd:'ready'}), process.send('ready') or READY=1
)

// Live is the configuration that a reload can change.
type Live struct {
	Fleet    fleet.Config
	MaxSlots int // maximum number of slots, with handoff scale
	// Balance applies to all addresses. It cannot be changed to or from Shared.
	Balance handoff.Balance
	Command process.Command
	// DrainSignal starts a drain under the bind contract. DrainReason is why it is not
	// SIGTERM, where handoff has chosen it; "": it has not.
	DrainSignal  unix.Signal
	DrainReason  string
	DrainMessage string // sent to Node programs in a drain; "": none
	SlotVariable string // another name for WORKER_ID in the environment; "": none
	Ports        []int  // one per slot, for PORT and port; nil: none
	// Holds reports whether an address that a worker binds is to be held, under
	// the bind contract.
	Holds func(netip.AddrPort) bool
	// Allow reports whether a worker of another user than handoff's may have a privileged
	// port; nil: none.
	Allow func(netip.AddrPort) bool
	// MayDrop reports whether a reload may end an address, by its port or its name; nil: none.
	MayDrop    func(at netip.AddrPort, name string) bool
	ReadyWhen  ReadyWhen
	QuietGrace time.Duration // time in which a worker registers what it has accepted; part of quiet
	// KeepConnections tells of which clients kept connections are taken over in a drain;
	// "": of none. Linger is how long one that the program has closed may have a request.
	KeepConnections takeover.Peers
	Linger          time.Duration
	// Conditions are the start conditions of each worker; slot i has the i-th of the
	// CPUs, modulo their number.
	Conditions  bindintercept.Conditions
	MaxMemory   int64         // resident memory of a worker's process group, in bytes; 0: no limit
	MaxRequests int           // served requests of a worker, if it reports them; 0: no limit
	StallKill   time.Duration // duration of a stall after which a worker is replaced; 0: never
	// BeforeReload and BeforeReady can refuse a reload, or a worker that is ready; nil:
	// no check.
	BeforeReload Veto
	BeforeReady  Veto
	// Health is how workers are checked; nil: they are not.
	Health *Health
	// Environ adds to the environment of each worker; nil adds nothing.
	Environ func(env []string) []string
	// Program is the encoded configuration for the next master: a later change of it
	// takes effect at a reload, not after a crash.
	Program []byte
}

// Config configures a master.
type Config struct {
	Name string // name of the service
	// Identity, with the directory, tells which workers are the service's that have outlived
	// it; "": Name.
	Identity string
	Version  string // version of handoff
	PID      int    // pid of the keeper, for people
	// Control is called when the master runs. The function that it returns is called when
	// the master ends; follows: another master takes over.
	Control func(Control) (stop func(follows bool))
	Live
	Contract Contract
	// Listen are the addresses that every worker gets at its start, under any contract,
	// by systemd's protocol (sd_listen_fds(3)).
	Listen []listeners.Listen
	// Inherited are sockets that a service manager has passed; Run owns them.
	Inherited []cmsg.Named
	// Keeper is the address of the keeper's notify socket, "" for none; Instance
	// identifies its processes. Store has the descriptors of the previous master, which
	// has died for Reason, after Restarts others; Run owns them.
	Keeper   string
	Instance string
	// RuntimeDir is the directory of the workers' notify sockets, absolute; "":
	// automatic.
	RuntimeDir string
	// SignalBase is what the keeper adds to the numbers of signals that it forwards. With
	// a keeper other signals are ignored.
	SignalBase int
	Store      []cmsg.Named
	Restarts   int
	Reason     string
	// ReplaceKeeper starts a new keeper with everything that the previous one had. The
	// new one ends this process when it takes over; else it returns. ManagerStores: a
	// service manager stores the descriptors, and restarts the keeper.
	ReplaceKeeper func(named []cmsg.Named, program []byte) error
	ManagerStores bool
	// Upgrade starts the binary on disk with the state, and returns nil if it can take
	// over: then this master ends. Changed reports whether the binary differs. Upgraded:
	// this master has taken over by an upgrade. UpgradeFailed is why the master of the last
	// upgrade is not there, but this one; "": it is, or there was none.
	Upgrade       func(state []byte) error
	Changed       func() bool
	Upgraded      bool
	UpgradeFailed string
	// UpWatchdog is the watchdog interval of the service manager; 0: none.
	UpWatchdog time.Duration
	// Reread rereads the configuration. later names the changes that require a restart of
	// handoff.
	Reread     func() (live Live, later []string, err error)
	DryRun     bool // dry run: every address is replaced by an unused one on loopback
	NoSteering bool // as if the kernel did not support the steering program
	// Admin serves a listener, which it owns, and returns a function that stops it; nil:
	// none. AdminListen returns the listener: that of the previous master (fd, which it
	// owns; -1: none), or a new one, when release has let go of that. The keeper stores it,
	// so that no client is refused between two masters. AdminAddr is its address.
	Admin       func(net.Listener, Control) (stop func())
	AdminListen func(fd int, release func()) (*net.TCPListener, error)
	AdminAddr   string
	// WorkerEvents records a message of a Node worker, a line of JSON. Any goroutine may
	// call it. With wait it may block, and then the worker waits. May be nil.
	WorkerEvents func(line []byte, wait bool)
	// Finish is called at the end, when everything has been logged; may be nil.
	Finish func()
	// Calm is called when a generation serves and little is to do; may be nil.
	Calm   func()
	Log    *slog.Logger
	Reopen func() error // SIGUSR1
	Stdout process.Stdout
	// Output returns the writers for the captured output of a worker, each used by one
	// goroutine; nil: handoff's own output.
	Output func(slot, pid, generation int) (stdout, stderr io.Writer)
	// Captured: each worker's output is told apart. Where it is not, what starts of one
	// generation have in common is passed on once.
	Captured bool
	// Losses sets a function that is called when output is lost, and with a nil error
	// when it no longer is; it returns whether it has recorded that. May be nil.
	Losses func(hear func(to string, err error, lines int) (taken bool))
}
