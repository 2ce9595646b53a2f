// The command predecessor runs one process of parti, the Go library before divvy, for tests of
// mixed fleets:
//
//	go build -o predecessor ./cmd/predecessor
//	./predecessor -nats nats://127.0.0.1:4222 -partitions partitions.json
//
// It prints one JSON line per event ([predecessor.Line]).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/divvy-rs/divvy/bindings/go/foreign/predecessor"
)

func main() {
	config, err := predecessor.Parse(os.Args[0], os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "predecessor:", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	lines := json.NewEncoder(os.Stdout)
	if err := predecessor.Run(ctx, config, func(line predecessor.Line) { _ = lines.Encode(line) }); err != nil {
		fmt.Fprintln(os.Stderr, "predecessor:", err)
		os.Exit(1)
	}
}
