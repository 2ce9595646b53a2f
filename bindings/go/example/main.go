// Command example runs a calculator and prints its events until SIGINT or SIGTERM.
//
//	go run ./example                                        an in-memory store with two workers
//	DIVVY_NATS_URL=nats://127.0.0.1:4222 go run ./example   a fleet on NATS
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
)

type tools struct{}

func (tools) ListPartitions(context.Context) ([]divvy.Partition, error) {
	return []divvy.Partition{
		{Keys: []string{"tool001", "chamber1"}, Weight: 100},
		{Keys: []string{"tool001", "chamber2"}},
		{Keys: []string{"tool002", "chamber1"}},
	}, nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	config := &divvy.Config{
		Source: tools{},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	store, err := open(ctx, config)
	if err != nil {
		return err
	}
	defer store.Close()
	config.Store = store
	calculator, err := divvy.NewCalculator(config)
	if err != nil {
		return err
	}
	defer calculator.Close()
	events, err := calculator.Subscribe()
	if err != nil {
		return err
	}
	if err := calculator.Start(ctx); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		fmt.Println("stopping")
		stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := calculator.Stop(stop); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	for event := range events.C { // until the calculator stops
		switch event.Kind {
		case divvy.EventCalculatorState:
			fmt.Printf("%s -> %s %s\n", event.From, event.State, event.Reason)
		case divvy.EventMember:
			fmt.Printf("%s %s\n", event.Worker, event.Change)
		case divvy.EventPublished:
			fmt.Printf("version %d (%s): %d partitions, %d workers\n",
				event.Version, event.Reason, event.Partitions, event.Workers)
		case divvy.EventFailed:
			fmt.Println(event.Err)
		}
	}
	return events.Err()
}

func open(ctx context.Context, config *divvy.Config) (*divvy.Store, error) {
	if url := os.Getenv("DIVVY_NATS_URL"); url != "" {
		return divvy.ConnectNATS(ctx, divvy.NATSOptions{URLs: []string{url}, Fleet: "tools"})
	}
	// These workers send a single heartbeat, so it must not expire.
	config.HeartbeatTTL = time.Hour
	store, err := divvy.NewMemoryStore()
	if err != nil {
		return nil, err
	}
	if err := store.Ensure(ctx, divvy.BucketHeartbeat, 0); err != nil {
		return nil, err
	}
	for _, worker := range []string{"worker-0", "worker-1"} {
		if err := store.Put(ctx, divvy.BucketHeartbeat, "heartbeat."+worker, []byte("up")); err != nil {
			return nil, err
		}
	}
	return store, nil
}
