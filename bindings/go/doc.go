// Package divvy divides partitions among a changing fleet of workers. It wraps the divvy library
// and keeps the method names of parti's manager and calculator.
//
// A [Manager] runs one worker: id, heartbeat, election, assignment, and a calculator while it
// leads. Most services need nothing else.
//
// A [Calculator] watches the heartbeats of a fleet in NATS JetStream KV (or in memory, for tests),
// decides when to rebalance, and publishes plans. It is for hosts with an election of their own:
// start it when the host leads, stop it when the host no longer leads.
//
//	store, err := divvy.ConnectNATS(ctx, divvy.NATSOptions{URLs: []string{"nats://127.0.0.1:4222"}, Fleet: "tools"})
//	...
//	calculator, err := divvy.NewCalculator(&divvy.Config{Store: store, Source: source})
//	...
//	err = calculator.Start(ctx)
//
// # Linking
//
// The package needs cgo and the C library. By default it links the static library that `make
// go-lib` in divvy's repository puts into lib and include. With the build tag divvy_dynamic it
// links the installed library that pkg-config finds as "divvy". Without cgo every call returns
// [ErrNoCgo].
//
// # Contexts
//
// Every call that waits takes a context and returns when the context ends. errors.Is then matches
// context.Canceled or context.DeadlineExceeded, and after a deadline also the failure that caused
// the delay. A context without a deadline gets the default of the call. When the context ends, the
// call is abandoned, with three exceptions: a requested rebalance stays queued, a stop continues in
// the background, and a write that was already sent may still be stored; its error says so.
//
// # Callbacks
//
// Sources, strategies, elections, metrics and OnAssignment may call any function except those that
// would wait for them: Stop and Close of their own calculator or manager return [ErrWouldDeadlock].
//
// # Threads
//
// All methods are safe for concurrent use. A subscription, OnAssignment and Metrics each use a
// goroutine that blocks inside the library, and therefore an OS thread. Sources, strategies and
// loggers run on threads of the library; a panic in one of them becomes an error.
package divvy
