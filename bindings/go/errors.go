package divvy

import (
	"errors"
	"fmt"
)

// Code is the kind of a failure: a number of the C ABI, never reused.
type Code int32

// Error is an error of the library. Use errors.Is(err, ErrTimedOut) and the other sentinels to test
// its code, and errors.As to read its fields.
type Error struct {
	// Code is the kind of failure.
	Code Code
	// Op is the operation that failed, such as "start", or the failing part of it, such as "read".
	Op string
	// Key is the store key that the failure was about; empty if none.
	Key string
	// Attempts is the number of failed attempts, the last one included; 0 if the call failed before
	// the first attempt.
	Attempts int
	// Message is one line of text for people: the failure with operation, key and cause.
	Message string
	// Retriable reports whether the same call may succeed later.
	Retriable bool
	cause     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("divvy: %s: %s", e.Code, e.Message)
}

// Is reports whether target is the sentinel of this error's code.
func (e *Error) Is(target error) bool {
	var other *sentinel
	return errors.As(target, &other) && other.code == e.Code
}

// Unwrap returns the error of the host's source or strategy if that is the cause.
func (e *Error) Unwrap() error {
	return e.cause
}

// sentinel matches every error of one code.
type sentinel struct {
	code Code
	text string
}

func (s *sentinel) Error() string {
	return "divvy: " + s.text
}

// The kinds of failure, for errors.Is.
var (
	ErrInvalidArgument error = &sentinel{codeInvalidArgument, "invalid argument"}
	ErrInvalidConfig   error = &sentinel{codeInvalidConfig, "invalid configuration"}
	ErrNotRunning      error = &sentinel{codeNotRunning, "not started, or stopped"}
	ErrAlreadyStarted  error = &sentinel{codeAlreadyStarted, "already started"}
	ErrWouldDeadlock   error = &sentinel{codeWouldDeadlock, "the call would wait for itself"}
	ErrForked          error = &sentinel{codeForked, "the process was forked after the library was used"}
	ErrClosed          error = &sentinel{codeBadHandle, "closed"}
	ErrNotFound        error = &sentinel{codeNotFound, "no value under that key"}
	ErrTimedOut        error = &sentinel{codeTimedOut, "deadline exceeded"}
	ErrCancelled       error = &sentinel{codeCancelled, "call cancelled"}
	ErrUnavailable     error = &sentinel{codeUnavailable, "the store cannot be reached"}
	ErrUnauthorized    error = &sentinel{codeUnauthorized, "the store rejected the credentials"}
	ErrUnsupported     error = &sentinel{codeUnsupported, "not supported by the store or this build"}
	ErrFenced          error = &sentinel{codeFenced, "a newer leader has taken over"}
	ErrConflict        error = &sentinel{codeConflict, "another client wrote or took over at the same time"}
	ErrNoWorkers       error = &sentinel{codeNoWorkers, "no live worker"}
	ErrInvalidData     error = &sentinel{codeInvalidData, "a stored value is malformed"}
	ErrTooLarge        error = &sentinel{codeTooLarge, "value exceeds the limit of the store"}
	ErrStore           error = &sentinel{codeStoreError, "the store failed"}
	ErrSourceFailed    error = &sentinel{codeSourceFailed, "the partition source failed"}
	ErrStrategyFailed  error = &sentinel{codeStrategyFailed, "the strategy failed"}
	ErrInvalidPlan     error = &sentinel{codeInvalidPlan, "invalid plan"}
	ErrIDsExhausted    error = &sentinel{codeIDsExhausted, "every worker id is claimed"}
	ErrIDLost          error = &sentinel{codeIDLost, "another process owns this worker's id"}
	ErrNotLeader       error = &sentinel{codeNotLeader, "this worker is not the leader"}
	ErrWrongFleet      error = &sentinel{codeWrongFleet, "the buckets belong to another fleet"}
	ErrPanicked        error = &sentinel{codePanicked, "a defect of the library"}
	// ErrLagged: a subscriber exceeded its backlog, and its channel was closed.
	ErrLagged error = &sentinel{codeLagged, "subscriber exceeded its backlog and was closed"}
	// ErrNoCgo: the package was built without cgo.
	ErrNoCgo error = &sentinel{codeNoCgo,
		"built without cgo: set CGO_ENABLED=1, install a C compiler, and run `make go-lib` in divvy's repository"}
)

// Codes of this package, in addition to those of the C ABI.
const (
	codeNoCgo  Code = -300
	codeLagged Code = -301
)

// String returns the code's name in the C ABI, without DIVVY_.
func (c Code) String() string {
	if name := codeName(c); name != "" {
		return name
	}
	return fmt.Sprintf("CODE(%d)", int32(c))
}
