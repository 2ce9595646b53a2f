//go:build cgo

package divvy_test

import (
	"context"
	"fmt"
	"log"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
)

// tools is a partition source: the work of a small factory.
type tools struct{}

func (tools) ListPartitions(context.Context) ([]divvy.Partition, error) {
	return []divvy.Partition{
		{Keys: []string{"tool001", "chamber1"}, Weight: 100},
		{Keys: []string{"tool001", "chamber2"}, Weight: 100},
	}, nil
}

// A calculator on a store in memory, with one worker, until its first plan is published.
func ExampleCalculator() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	store, err := divvy.NewMemoryStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	// What a worker does every two seconds.
	if err := store.Ensure(ctx, divvy.BucketHeartbeat, 6*time.Second); err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, divvy.BucketHeartbeat, "heartbeat.worker-0", []byte("alive")); err != nil {
		log.Fatal(err)
	}

	calculator, err := divvy.NewCalculator(&divvy.Config{Store: store, Source: tools{}})
	if err != nil {
		log.Fatal(err)
	}
	defer calculator.Close()
	if err := calculator.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := calculator.TriggerRebalance(ctx); err != nil {
		log.Fatal(err)
	}
	assignment, err := store.Get(ctx, divvy.BucketAssignment, "assignment.worker-0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(assignment) > 0, calculator.CurrentVersion() > 0)
	// Output: true true
}

// Every state, in order, until the calculator stops.
func ExampleCalculator_SubscribeToStateChanges() {
	store, err := divvy.NewMemoryStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	calculator, err := divvy.NewCalculator(&divvy.Config{Store: store, Source: tools{}})
	if err != nil {
		log.Fatal(err)
	}
	defer calculator.Close()
	states, cancel := calculator.SubscribeToStateChanges()
	defer cancel()
	fmt.Println(<-states)
	// Output: Idle
}

// A worker on a store in memory: it joins, is alone, leads, and is told what to work on.
func ExampleManager() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	store, err := divvy.NewMemoryStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	manager, err := divvy.NewManager(&divvy.ManagerConfig{
		Config: divvy.Config{
			Store: store, Source: tools{},
			// Short for the example; the defaults are right for a real fleet.
			ColdStartWindow: 200 * time.Millisecond, PlannedScaleWindow: 200 * time.Millisecond,
			Cooldown: 100 * time.Millisecond,
		},
		OnAssignment: func(change divvy.AssignmentChange) {
			for _, partition := range change.Removed {
				fmt.Println("stop", partition.Keys)
			}
			for _, partition := range change.Added {
				fmt.Println("start", partition.Keys)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer manager.Close()
	if err := manager.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := manager.WaitState(ctx, divvy.ManagerStateStable); err != nil {
		log.Fatal(err)
	}
	if err := manager.Stop(ctx, divvy.Leave); err != nil {
		log.Fatal(err)
	}
	// Output:
	// start [tool001 chamber1]
	// start [tool001 chamber2]
	// stop [tool001 chamber1]
	// stop [tool001 chamber2]
}
