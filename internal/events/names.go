// Package events has the names of all events: what a line of the log has as "event",
// what hooks are for, and what the Node SDK hears. Names are stable: they are added,
// never changed; a tool that waits for one goes on working. The words of a line are for
// people, and may change. docs/reference/events.md is made from [All].
package events

// The service.
const (
	ClusterStarting  = "cluster.starting"
	ClusterStarted   = "cluster.started"
	ClusterReloading = "cluster.reloading"
	ClusterReloaded  = "cluster.reloaded"
	ClusterFailed    = "cluster.failed"
	ClusterScaled    = "cluster.scaled"
	ClusterChanged   = "cluster.changed"
	ClusterFrozen    = "cluster.frozen"
	ClusterShutdown  = "cluster.shutdown"
	ClusterStopped   = "cluster.stopped"
	ScaleFailed      = "scale.failed"
	RestartFailed    = "restart.failed"
	ReloadRefused    = "reload.refused"
	ConfigFailed     = "config.failed"
	ConfigLater      = "config.later"
	CommandUnpinned  = "command.unpinned"
	DrainSignal      = "drain.signal"
	WatchFailed      = "watch.failed"
	WatchOmitted     = "watch.omitted"
	WatchSlowed      = "watch.slowed"
)

// Workers.
const (
	WorkerStarted     = "worker.started"
	WorkerReady       = "worker.ready"
	WorkerRefused     = "worker.refused"
	WorkerUnhealthy   = "worker.unhealthy"
	WorkerHealthy     = "worker.healthy"
	HealthSkipped     = "health.skipped"
	WorkerIncomplete  = "worker.incomplete"
	WorkerStatus      = "worker.status"
	WorkerLeaving     = "worker.leaving"
	WorkerRecycled    = "worker.recycled"
	WorkerDraining    = "worker.draining"
	WorkerShutdown    = "worker.shutdown"
	WorkerCrashed     = "worker.crashed"
	WorkerHung        = "worker.hung"
	WorkerStalled     = "worker.stalled"
	WorkerRecovered   = "worker.recovered"
	WorkerSignalled   = "worker.signalled"
	WorkerTerminated  = "worker.terminated"
	WorkerKilled      = "worker.killed"
	WorkerDescendants = "worker.descendants"
	WorkerGarbled     = "worker.garbled"
	WorkerSeated      = "worker.seated"
	WorkerUnseated    = "worker.unseated"
	WorkerLost        = "worker.lost"
	WorkerUnwatched   = "worker.unwatched"
	WorkerMuted       = "worker.muted"
	NotifyOpen        = "notify.open"
	SignalFailed      = "signal.failed"
)

// Addresses and their sockets.
const (
	AddressOpened   = "address.opened"
	AddressClosed   = "address.closed"
	AddressOwn      = "address.own"
	AddressPassed   = "address.passed"
	AddressShared   = "address.shared"
	AddressStranger = "address.stranger"
	AddressHash     = "address.hash"
	AddressMended   = "address.mended"
	AddressRefused  = "address.refused"
	AddressRescued  = "address.rescued"
	AddressStranded = "address.stranded"
	AddressUnserved = "address.unserved"
	AddressWaited   = "address.waited"
	AddressLost     = "address.lost"
	AddressFailed   = "address.failed"

	ConnectionsKept   = "connections.kept"
	ConnectionsUnkept = "connections.unkept"
	ConnectionsLost   = "connections.lost"
)

// Handoff itself: master, keeper, and what is beside them.
const (
	MasterUpgrading = "master.upgrading"
	MasterUpgraded  = "master.upgraded"
	UpgradeFailed   = "upgrade.failed"
	MasterAdopted   = "master.adopted"
	MasterRecovered = "master.recovered"
	KeeperMute      = "keeper.mute"
	KeeperAnswers   = "keeper.answers"
	KeeperDied      = "keeper.died"
	KeeperAwaited   = "keeper.awaited"
	KeeperMissing   = "keeper.missing"
	RecordFailed    = "record.failed"
	SignalStray     = "signal.stray"
	ControlMissing  = "control.missing"
	ControlOrder    = "control.order"
	AdminFailed     = "admin.failed"
	PreloadMissing  = "preload.missing"
	LogReopened     = "log.reopened"
	LogLost         = "log.lost"
	OutputLost      = "output.lost"
	OutputRecovered = "output.recovered"
	HookFailed      = "hook.failed"
	HookLost        = "hook.lost"
	HookOutput      = "hook.output"
)

// Worker events, that only the Node SDK hears: they are not in the log.
const (
	ClusterStatus  = "cluster.status"
	NodeOnline     = "node.online"
	NodeListening  = "node.listening"
	NodeMessage    = "node.message"
	NodeDisconnect = "node.disconnect"
	ToldLost       = "told.lost"
)
