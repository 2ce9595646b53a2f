package predecessor

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// Config is the configuration of one process.
type Config struct {
	URL string
	// Prefix of the stable ids, and their number.
	Prefix string
	IDs    int
	// Names of the buckets.
	StableIDBucket, ElectionBucket, HeartbeatBucket, AssignmentBucket string
	// TTLs of the buckets.
	IDTTL, ElectionTTL, HeartbeatTTL time.Duration
	HeartbeatInterval                time.Duration
	// Window is the time from a change of the fleet to its plan.
	Window time.Duration
	// Linger: time after the loss of the leadership at which it publishes once more; 0: not at all.
	Linger time.Duration
	// Steal is an id that is claimed without a check, as after a failed read; empty: none.
	Steal string
	// Lead is whether it takes part in the election.
	Lead       bool
	Strategy   string
	Partitions []Partition
	// Leave is whether SIGTERM makes the process leave the fleet, or just end and let its keys expire.
	Leave bool
}

// Default returns the configuration with parti's names and times.
func Default() Config {
	return Config{
		URL: "nats://127.0.0.1:4222", Prefix: "worker", IDs: 100,
		StableIDBucket: "parti-stableid", ElectionBucket: "parti-election",
		HeartbeatBucket: "parti-heartbeat", AssignmentBucket: "parti-assignment",
		IDTTL: 30 * time.Second, ElectionTTL: 5 * time.Second, HeartbeatTTL: 6 * time.Second,
		HeartbeatInterval: 2 * time.Second, Window: 10 * time.Second,
		Lead: true, Strategy: ConsistentHash, Leave: true,
	}
}

// Parse reads a command line. Errors are printed by the flag package.
func Parse(name string, arguments []string) (Config, error) {
	config := Default()
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&config.URL, "nats", config.URL, "`URL` of the server")
	flags.StringVar(&config.Prefix, "prefix", config.Prefix, "of the worker ids")
	flags.IntVar(&config.IDs, "ids", config.IDs, "how many worker ids there are")
	flags.StringVar(&config.StableIDBucket, "stable-id-bucket", config.StableIDBucket, "")
	flags.StringVar(&config.ElectionBucket, "election-bucket", config.ElectionBucket, "")
	flags.StringVar(&config.HeartbeatBucket, "heartbeat-bucket", config.HeartbeatBucket, "")
	flags.StringVar(&config.AssignmentBucket, "assignment-bucket", config.AssignmentBucket, "")
	flags.DurationVar(&config.IDTTL, "id-ttl", config.IDTTL, "")
	flags.DurationVar(&config.ElectionTTL, "election-ttl", config.ElectionTTL, "")
	flags.DurationVar(&config.HeartbeatTTL, "heartbeat-ttl", config.HeartbeatTTL, "")
	flags.DurationVar(&config.HeartbeatInterval, "heartbeat-interval", config.HeartbeatInterval, "")
	flags.DurationVar(&config.Window, "window", config.Window, "from a change of the fleet to the plan for it")
	flags.DurationVar(&config.Linger, "linger", 0, "publish once more this long after losing the leadership")
	flags.StringVar(&config.Steal, "steal", "", "claim this `ID` even if another process has it")
	flags.StringVar(&config.Strategy, "strategy", config.Strategy, ConsistentHash+" or "+RoundRobin)
	lead := flags.String("lead", "auto", "auto or never")
	onTerm := flags.String("on-term", "leave", "what SIGTERM does: leave (leave the fleet) or die (just end)")
	file := flags.String("partitions", "", "`FILE` with a JSON list of partitions, as in an assignment")
	if err := flags.Parse(arguments); err != nil {
		return config, err
	}
	choose := func(option, value, yes, no string) (bool, error) {
		if value != yes && value != no {
			return false, fmt.Errorf("-%s=%s: use %s or %s", option, value, yes, no)
		}
		return value == yes, nil
	}
	var err error
	if config.Lead, err = choose("lead", *lead, "auto", "never"); err != nil {
		return config, err
	}
	if config.Leave, err = choose("on-term", *onTerm, "leave", "die"); err != nil {
		return config, err
	}
	if *file == "" {
		return config, nil
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return config, err
	}
	if err := json.Unmarshal(text, &config.Partitions); err != nil {
		return config, fmt.Errorf("%s: %w", *file, err)
	}
	return config, nil
}
