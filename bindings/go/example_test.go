//go:build cgo

package divvy_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
)

// tools is a partition source.
type tools struct{}

func (tools) ListPartitions(context.Context) ([]divvy.Partition, error) {
	return []divvy.Partition{
		{Keys: []string{"tool001", "chamber1"}, Weight: 100},
		{Keys: []string{"tool001", "chamber2"}, Weight: 100},
	}, nil
}

// A calculator on an in-memory store with one worker, until its first plan is published.
func ExampleCalculator() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	store, err := divvy.NewMemoryStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	// A worker sends a heartbeat every two seconds.
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

// A worker on an in-memory store: it joins, leads and receives its assignment.
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
			// Short for the example; keep the defaults in a real fleet.
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

// A store without a manager: a worker of its own kind sends a heartbeat and reads its assignment key.
func ExampleStore() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	store, err := divvy.NewMemoryStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Ensure(ctx, divvy.BucketHeartbeat, 6*time.Second); err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, divvy.BucketHeartbeat, "heartbeat.worker-0", []byte("alive")); err != nil {
		log.Fatal(err)
	}
	heartbeat, err := store.Get(ctx, divvy.BucketHeartbeat, "heartbeat.worker-0")
	fmt.Println(string(heartbeat), err)
	_, err = store.Get(ctx, divvy.BucketHeartbeat, "heartbeat.worker-1")
	fmt.Println(errors.Is(err, divvy.ErrNotFound))
	// Output:
	// alive <nil>
	// true
}

// An invalid configuration: the error lists every violation.
func ExampleError() {
	config := &divvy.ManagerConfig{HeartbeatInterval: 10 * time.Second}
	config.HeartbeatTTL = 6 * time.Second // shorter than the interval: it cannot work
	err := config.Validate()
	var failure *divvy.Error
	fmt.Println(errors.Is(err, divvy.ErrInvalidConfig), errors.As(err, &failure), failure.Retriable)
	// Output: true true false
}

// Metrics and health of a worker over HTTP.
func ExampleManager_MetricsHandler() {
	store, err := divvy.NewMemoryStore()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	manager, err := divvy.NewManager(&divvy.ManagerConfig{Config: divvy.Config{Store: store, Source: tools{}}})
	if err != nil {
		log.Fatal(err)
	}
	defer manager.Close()
	mux := http.NewServeMux()
	mux.Handle("/metrics", manager.MetricsHandler())
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) {
		if !manager.IsStarted() {
			http.Error(w, "not started", http.StatusServiceUnavailable)
		}
	})

	reply := httptest.NewRecorder()
	mux.ServeHTTP(reply, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	fmt.Println(reply.Code, strings.Contains(reply.Body.String(), "divvy_calculator_up 0"))
	reply = httptest.NewRecorder()
	mux.ServeHTTP(reply, httptest.NewRequest(http.MethodGet, "/livez", nil))
	fmt.Println(reply.Code)
	// Output:
	// 200 true
	// 503
}
