package events

import "slices"

// Info is what is said of an event in docs/reference/events.md.
type Info struct {
	Name   string
	Levels []string // of its lines, as slog names them; none: it is a worker event only
	Text   string   // when it happens
	Fields []string // that its line may have besides time, level, msg, event and name
}

// WorkerFields are the first fields of every event of one worker; port where its slot
// has one.
func WorkerFields() []string { return []string{"slot", "pid", "generation", "worker", "port"} }

func of(name, level, text string, fields ...string) Info {
	return Info{Name: name, Levels: []string{level}, Text: text, Fields: fields}
}

// worker is of for an event of one worker.
func worker(name, level, text string, fields ...string) Info {
	return of(name, level, text, slices.Concat(WorkerFields(), fields)...)
}

// or adds a level.
func (i Info) or(level string) Info {
	i.Levels = append(i.Levels, level)
	return i
}

// heard is of for what is not in the log.
func heard(name, text string, fields ...string) Info {
	return Info{Name: name, Text: text, Fields: fields}
}

const (
	debug = "DEBUG"
	info  = "INFO"
	warn  = "WARN"
	fail  = "ERROR"
)

// All lists every event, in the order of the reference.
func All() []Info { return slices.Concat(cluster(), workers(), addresses(), itself(), workerEvents()) }

func cluster() []Info {
	return []Info{
		of(ClusterStarting, info, "handoff has started, and starts the workers; as a warning: it cannot keep its terminal from them", "pid", "workers", "version").or(warn),
		of(ClusterStarted, info, "the first generation serves every slot", "generation", "workers", "after_seconds", "addresses"),
		of(ClusterReloading, info, "a reload has begun", "generation", "workers"),
		of(ClusterReloaded, info, "a later generation serves every slot", "generation", "workers", "after_seconds", "addresses"),
		of(ClusterFailed, fail, "a generation failed (`serving` is the one that keeps serving; without it nothing serves), or handoff cannot start, or a reload did not begin because the upgrade before it failed", "generation", "reason", "stderr", "serving"),
		of(ClusterScaled, info, "the number of workers changes; as a warning: it does not, because the new number is not allowed", "workers", "least", "most").or(warn),
		of(ScaleFailed, fail, "the workers of new slots could not be started (`wanted`); there are `workers` again", "wanted", "workers", "slot", "reason", "stderr"),
		of(RestartFailed, fail, "`handoff restart` could not start a new worker; the old one keeps serving", "slot", "reason", "stderr"),
		of(ClusterChanged, info, "watched files have changed; a reload follows", "file", "files"),
		of(ClusterFrozen, info, "workers that end are no longer replaced (Node SDK)"),
		of(ClusterShutdown, info, "the service begins to stop, or must stop immediately; as an error: it stops because its keeper died", "signal", "workers", "within_seconds", "now").or(warn).or(fail),
		of(ClusterStopped, info, "every worker has ended; handoff exits"),
		of(ReloadRefused, fail, "the hook `before_reload` has refused a reload", "reason"),
		of(ConfigFailed, fail, "the configuration is invalid; nothing has changed", "reason"),
		of(ConfigLater, warn, "a changed key needs a restart of handoff", "key"),
		of(CommandUnpinned, warn, "the command goes through a symlink in a text that cannot be pinned (`sh -c`): a crash after a switch of the link runs the new code before a reload", "link"),
		of(DrainSignal, info, "workers drain by another signal than SIGTERM, because their program is known to need it", "signal"),
		of(WatchFailed, fail, "files cannot be watched, or the reload after a change cannot begin"),
		of(WatchOmitted, warn, "the workers write a watched file after each start: it does not cause reloads any more", "file"),
		of(WatchSlowed, warn, "reloads by `--watch` follow each other too quickly: the next one waits", "file", "files", "after_seconds"),
	}
}

func workers() []Info {
	return []Info{
		worker(WorkerStarted, info, "a worker's process has started"),
		worker(WorkerReady, info, "a worker serves: new connections go to it", "after_seconds"),
		worker(WorkerIncomplete, warn, "a worker that claims to be ready does not accept on every address that the generation in service has, after a second: it is waited for until its ready timeout", "reason"),
		worker(WorkerRefused, fail, "the hook `before_ready` has refused a worker, or it has not passed its health check (`--health`) in time", "reason"),
		worker(WorkerUnhealthy, warn, "a worker that serves fails its health check: new connections go to the others, and it is replaced", "reason"),
		worker(WorkerHealthy, info, "a worker that was to be replaced passes its health check again, and gets connections until then"),
		of(HealthSkipped, warn, "workers are not checked, because a connection of handoff's cannot reach a chosen one: they share one socket, or the kernel cannot steer", "reason"),
		worker(WorkerStatus, debug, "a worker reports its status; as a warning: it wants descriptors stored, which handoff does not do", "status", "reloading").or(warn),
		worker(WorkerLeaving, info, "a worker asks to be replaced"),
		worker(WorkerRecycled, info, "a worker is replaced for its age, memory, number of requests or a stall", "reason"),
		worker(WorkerDraining, info, "a worker drains: it finishes the requests it has"),
		worker(WorkerShutdown, info, "a worker ended as requested", "code", "killed_by"),
		worker(WorkerCrashed, fail, "a worker ended by itself, or could not be started; of a start, `failures` counts those of its slot in a row, and `same` tells that it ended like the failed start before it", "code", "killed_by", "after_seconds", "stderr", "failures", "max_failures", "same"),
		worker(WorkerHung, fail, "a worker is ended because it does not report in time or accepts nothing"),
		worker(WorkerStalled, warn, "a worker accepts nothing, while others do; new connections go to the others"),
		worker(WorkerRecovered, info, "a stalled worker accepts again", "after_seconds"),
		worker(WorkerSignalled, info, "a signal was sent to a worker by the control API"),
		worker(WorkerTerminated, warn, "a worker did not end in time and gets SIGTERM"),
		worker(WorkerKilled, warn, "a worker is killed; as an error: because it does not read the answers to its requests").or(fail),
		of(WorkerDescendants, warn, "processes that a worker has started and left are ended; as information: they finish their connections first; as an error: one of them cannot be ended", "worker", "processes", "reason", "within_seconds").or(info).or(fail),
		worker(WorkerGarbled, warn, "a message from a worker was invalid and dropped"),
		worker(WorkerSeated, debug, "a worker's bind(2), left unanswered by the previous master, is answered", "address"),
		worker(WorkerUnseated, warn, "the kernel refuses to intercept bind(2): the program's own sockets are not held"),
		worker(WorkerLost, fail, "a worker of the previous master cannot be adopted").or(warn),
		worker(WorkerUnwatched, fail, "cannot wait for the end of a worker's process"),
		worker(WorkerMuted, fail, "a worker runs without a notify socket: it cannot say READY=1"),
		of(NotifyOpen, warn, "there is no private directory for notify sockets: any local user can send to them"),
		of(SignalFailed, fail, "a process cannot be signalled"),
	}
}

func addresses() []Info {
	return []Info{
		of(AddressOpened, debug, "handoff listens on an address of `--listen`", "address", "name"),
		of(AddressUnserved, warn, "nobody accepts on an address any more, though every slot is served: the program has closed its socket. Connections wait", "address"),
		of(AddressClosed, info, "an address that no worker uses any more is closed", "address"),
		worker(AddressOwn, warn, "a worker listens on a socket of its own that is not held", "address"),
		of(AddressPassed, warn, "a socket of the service manager cannot be used"),
		of(AddressShared, warn, "all workers share the one socket that the service manager passed"),
		of(AddressStranger, warn, "another program has joined an address with SO_REUSEPORT and gets no connections; as information: it has left", "address").or(info),
		of(AddressHash, warn, "the kernel refuses to steer connections: it spreads them by a hash, and generations overlap", "address"),
		worker(AddressMended, warn, "a worker has changed a listening socket of handoff; repaired", "address"),
		worker(AddressRefused, fail, "a worker does not get the socket that it wants", "address"),
		of(AddressRescued, info, "connections in the queue of a worker that ended were handed to a live one", "address", "connections").or(fail),
		worker(AddressStranded, fail, "a connection in the queue of a worker that ended was lost; as a warning: such a queue remains, and the worker of its slot is replaced to empty it", "address").or(warn),
		of(AddressWaited, info, "with `--overlap none`: no worker accepted for a while, and connections waited for the next one", "address", "connections", "waited"),
		of(AddressLost, fail, "a socket of the previous master is missing", "address"),
		of(ConnectionsKept, info, "what became of the kept connections of workers that drained (`taken`): the next request was answered by another worker, none came (`idle`), something else came than HTTP/1 (`closed`), the program kept them (`left`)", "taken", "answered", "idle", "closed", "left"),
		worker(ConnectionsUnkept, warn, "kept connections of a worker are not taken over, or a program that the drain signal ends had not answered everything (`requests`)", "reason", "requests"),
		of(ConnectionsLost, fail, "the relay process was killed, with kept connections that nobody else had; as information: the filters that it has left were taken off", "connections", "filters").or(info),
		of(AddressFailed, fail, "the kernel has refused an operation on a listening socket"),
	}
}

func itself() []Info {
	return []Info{
		of(MasterUpgrading, info, "the binary on disk was started to take over"),
		of(MasterUpgraded, info, "a new binary has taken over", "version", "workers", "addresses"),
		of(UpgradeFailed, fail, "the new binary did not take over; this one keeps running", "reason"),
		of(MasterAdopted, warn, "the previous master died; this one continues with its workers", "reason", "restarts", "workers", "addresses"),
		of(MasterRecovered, warn, "workers of a handoff that was killed whole were adopted; a reload follows", "workers", "addresses"),
		of(KeeperMute, fail, "the keeper does not respond: state changes are not stored until it does"),
		of(KeeperAnswers, info, "the keeper responds again and has the complete state"),
		of(KeeperDied, fail, "the keeper died; the master starts another one", "keeper", "pid"),
		of(KeeperAwaited, warn, "the service manager has the state and restarts handoff"),
		of(KeeperMissing, fail, "cannot start a new keeper; handoff continues without one", "pid", "reason"),
		of(RecordFailed, fail, "the state for the next master cannot be written or passed to the keeper; as a warning: the file of the workers cannot").or(warn),
		of(SignalStray, warn, "the master ignored a signal that is meant for the keeper", "signal", "keeper", "pid"),
		of(ControlMissing, warn, "there is no control socket: `handoff status` does not find this service"),
		worker(ControlOrder, info, "a process of a worker (`sender`) gives an order on the control socket, as handoff's own user or root", "request", "sender"),
		of(AdminFailed, fail, "the address of `--admin` cannot be served", "address"),
		of(PreloadMissing, warn, "the drain preload cannot be written; keep-alive clients may lose a request at a reload"),
		of(LogReopened, info, "the log file was reopened, or cannot be").or(fail),
		of(LogLost, warn, "log lines were dropped, because the reader of the log is too slow; with `error`: they could not be written (the disk is full), and now can", "lines", "error"),
		of(OutputLost, fail, "what workers write cannot be written to `to` (a file, stdout or stderr): the disk is full, the terminal has closed, nobody reads the pipe; the workers go on", "to", "error"),
		of(OutputRecovered, warn, "it is written again; `lines` were lost", "to", "lines"),
		of(HookFailed, warn, "a hook has failed", "hook"),
		of(HookLost, warn, "hooks are too slow: events were dropped", "events"),
		of(HookOutput, info, "output of a hook", "hook"),
	}
}

// workerEvents are not in the log.
func workerEvents() []Info {
	return []Info{
		heard(ClusterStatus, "the status, as `GET /v1/status` has it, at its place among the events", "status"),
		heard(NodeOnline, "a Node worker has booted", "slot", "pid", "generation", "worker"),
		heard(NodeListening, "a Node worker listens", "slot", "pid", "generation", "worker", "address"),
		heard(NodeMessage, "a Node worker has sent a message", "slot", "pid", "generation", "worker", "message"),
		heard(NodeDisconnect, "a Node worker has closed its channel", "slot", "pid", "generation", "worker"),
		heard(ToldLost, "messages were dropped, because nobody read the worker events", "messages"),
	}
}
