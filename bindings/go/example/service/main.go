// Command service is a complete worker service: it joins a fleet, works on the partitions that it is
// assigned, serves health checks and metrics over HTTP, keeps working while the NATS server restarts,
// and leaves on SIGINT or SIGTERM.
//
//	DIVVY_NATS_URL=nats://127.0.0.1:4222 LISTEN=127.0.0.1:8080 go run ./example/service
//
// Every setting can be given as an environment variable: heartbeat_ttl is DIVVY_HEARTBEAT_TTL.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
)

// tools is the partition source. Every worker needs the same list, because each may lead.
type tools struct{}

func (tools) ListPartitions(context.Context) ([]divvy.Partition, error) {
	var all []divvy.Partition
	for n := range 12 {
		all = append(all, divvy.Partition{Keys: []string{fmt.Sprintf("tool%03d", n)}, Weight: 100})
	}
	return all, nil
}

// apply stops what was removed first, then starts what was added.
func apply(change divvy.AssignmentChange) {
	for _, partition := range change.Removed {
		fmt.Println("stop", strings.Join(partition.Keys, "."))
	}
	for _, partition := range change.Added {
		fmt.Println("start", strings.Join(partition.Keys, "."))
	}
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

	url := cmp.Or(os.Getenv("DIVVY_NATS_URL"), "nats://127.0.0.1:4222")
	store, err := divvy.ConnectNATS(ctx, divvy.NATSOptions{URLs: []string{url}, Name: "tools", Fleet: "tools"})
	if err != nil {
		return err
	}
	defer store.Close()
	manager, err := divvy.NewManager(&divvy.ManagerConfig{
		Config: divvy.Config{
			Store:    store,
			Source:   tools{},
			Logger:   slog.Default(),
			Settings: settings(),
		},
		OnAssignment: apply,
	})
	if err != nil {
		return err
	}
	defer manager.Close()
	if err := manager.Start(ctx); err != nil {
		return err
	}
	fmt.Println("joined as", manager.WorkerID())

	server := &http.Server{
		Addr:              cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080"),
		Handler:           routes(manager),
		ReadHeaderTimeout: time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case <-ctx.Done():
	case err = <-failed:
	}

	fmt.Println("stopping")
	stop, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	// Use divvy.Restart when the process comes back at once: its partitions then stay in place.
	return errors.Join(err, manager.Stop(stop, divvy.Leave), server.Shutdown(stop))
}

// routes serves /livez (the library works), /readyz (this worker serves an assignment) and /metrics.
func routes(manager *divvy.Manager) http.Handler {
	check := func(ok func() bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if !ok() {
				http.Error(w, "not ready", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", manager.MetricsHandler())
	mux.HandleFunc("/livez", check(manager.IsLive))
	mux.HandleFunc("/readyz", check(manager.IsReady))
	return mux
}

// settings reads every DIVVY_ variable but the URL: DIVVY_HEARTBEAT_TTL is heartbeat_ttl.
func settings() map[string]string {
	found := map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if key, ok := strings.CutPrefix(name, "DIVVY_"); ok && key != "NATS_URL" {
			found[strings.ToLower(key)] = value
		}
	}
	return found
}
