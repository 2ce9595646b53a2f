// Package divvy keeps a set of partitions divided among a changing fleet of workers: manager and
// calculator of the Go library parti, by the same method names, on the library divvy.
//
// A [Manager] is one worker's whole life: id, heartbeat, election, assignment, and a calculator while
// it leads. Most services want that and nothing else.
//
// A [Calculator] watches the heartbeats of a fleet in NATS JetStream KV (or in memory, for tests),
// decides when its partitions are to be divided anew, and publishes the plan. It is for hosts that
// have an election of their own: start it where the host leads, stop it where it no longer does.
//
//	store, err := divvy.ConnectNATS(ctx, divvy.NATSOptions{URLs: []string{"nats://127.0.0.1:4222"}})
//	...
//	calculator, err := divvy.NewCalculator(&divvy.Config{Store: store, Source: source})
//	...
//	err = calculator.Start(ctx)
//
// # Linking
//
// The package needs cgo and the C library. By default it is linked statically with what
// `make go-lib` in divvy's repository lays into lib and include; with the build tag divvy_dynamic
// it is linked with the installed library that pkg-config finds as "divvy". Without cgo everything
// returns [ErrNoCgo].
//
// # Contexts
//
// Every call that waits takes a context and returns when that is done, with an error for which
// errors.Is tells context.Canceled or context.DeadlineExceeded, and at a deadline why nothing had come of
// it until then, too. A context without a deadline gets the default that the call states. Nothing of the
// call goes on then, but that a rebalance stays asked for, a stop goes on by itself, and a write that was
// sent may be carried out: its error says so.
//
// # Callbacks
//
// Sources, strategies, elections, metrics and OnAssignment may call everything but what would wait for
// them: Stop and Close of their own calculator or manager return [ErrWouldDeadlock] there.
//
// # Threads
//
// All methods may be called from any goroutine, at the same time. A subscription, OnAssignment and
// Metrics each cost a goroutine that waits for events inside the library, and so a thread of the
// system's; what is told reaches the channel sooner that way. Sources, strategies and loggers are
// called from threads of the library; a panic in one of them becomes an error.
package divvy
