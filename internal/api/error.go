package api

import "fmt"

// Error is the body of a response that is not 200. Clients decide by Code; Message is for
// people, and may change.
type Error struct {
	Message string `json:"error"`
	Code    Code   `json:"code"`
}

func (e Error) Error() string { return e.Message }

// Errorf returns an error with a code.
func Errorf(code Code, format string, args ...any) Error {
	return Error{fmt.Sprintf(format, args...), code}
}

// Code is the kind of an error. Codes are stable: they are added, never changed.
type Code string

// The codes, see [Codes].
const (
	CodeBadRequest      Code = "bad_request"
	CodeUnknownRoute    Code = "unknown_route"
	CodeStopping        Code = "stopping"
	CodeReloadFailed    Code = "reload_failed"
	CodeUpgradeFailed   Code = "upgrade_failed"
	CodeOutOfRange      Code = "out_of_range"
	CodeUnknownSlot     Code = "unknown_slot"
	CodeSlotUnserved    Code = "slot_unserved"
	CodeBalanceFixed    Code = "balance_fixed"
	CodeUnknownWorker   Code = "unknown_worker"
	CodeNoChannel       Code = "no_channel"
	CodeWorkerBusy      Code = "worker_busy"
	CodeReservedMessage Code = "reserved_message"
	CodeUnknownSignal   Code = "unknown_signal"
	CodeNotEmbedded     Code = "not_embedded"
	CodeNotCaptured     Code = "not_captured"
	CodeFailed          Code = "failed"
	CodeEnded           Code = "ended"
	CodeTimeout         Code = "timeout"
)

// CodeInfo is a row of [Codes].
type CodeInfo struct {
	Code   Code
	Status int    // of HTTP
	Text   string // what it means, and what to do
}

// Codes lists every code.
func Codes() []CodeInfo {
	const malformed, unknown, cannot, unavailable = 400, 404, 409, 503
	return []CodeInfo{
		{CodeBadRequest, malformed, "the request is malformed: a parameter is missing or is not a number, a body is not JSON or too large"},
		{CodeUnknownRoute, unknown, "unknown request"},
		{CodeStopping, cannot, "the service is stopping"},
		{CodeReloadFailed, cannot, "the reload failed immediately, for example because the configuration on disk is invalid; nothing has changed"},
		{CodeUpgradeFailed, cannot, "the new binary did not take over; the old one keeps running"},
		{CodeOutOfRange, cannot, "that number of workers is not allowed"},
		{CodeUnknownSlot, cannot, "the slot does not exist"},
		{CodeSlotUnserved, cannot, "no worker serves the slot now: one is starting, or backs off after a crash"},
		{CodeBalanceFixed, cannot, "only `even` and `sticky` can be exchanged while the service runs"},
		{CodeUnknownWorker, cannot, "the worker does not exist; it may have ended"},
		{CodeNoChannel, cannot, "the worker has no IPC channel: it is not a Node program, has ended, or has closed it"},
		{CodeWorkerBusy, cannot, "the worker does not read its messages fast enough; try again later"},
		{CodeReservedMessage, cannot, "a message whose `cmd` begins with `NODE_` is Node's own"},
		{CodeUnknownSignal, cannot, "unknown signal name"},
		{CodeNotEmbedded, cannot, "the service was not started with `--embedded`, so worker events are not recorded"},
		{CodeNotCaptured, cannot, "the output of workers is not captured (`--capture`)"},
		{CodeFailed, cannot, "anything else; see the text"},
		{CodeEnded, unavailable, "this master has ended; ask again, the next one may answer"},
		{CodeTimeout, unavailable, "the master did not answer in time"},
	}
}

// Status returns the HTTP status of a code; 409 for one that is not known.
func (c Code) Status() int {
	for _, info := range Codes() {
		if info.Code == c {
			return info.Status
		}
	}
	return 409
}
