package divvy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Config is what a calculator is made from. The zero value of every field but Store means its
// default, see [Config.SetDefaults].
type Config struct {
	// Store is where the fleet coordinates; see [NewMemoryStore] and [ConnectNATS]. Required.
	Store *Store

	// AssignmentPrefix and HeartbeatPrefix are the prefixes of the keys in the buckets. Defaults
	// "assignment" and "heartbeat".
	AssignmentPrefix string
	HeartbeatPrefix  string

	// HeartbeatTTL: a worker not heard of for this long is missing. Default 6 s.
	HeartbeatTTL time.Duration
	// EmergencyGracePeriod: a worker missing for this long is lost. Default 5 s.
	EmergencyGracePeriod time.Duration
	// Cooldown is the least time from one publication to the next; emergencies, leaves and manual
	// triggers do not wait for it. Default 10 s.
	Cooldown time.Duration
	// MinThreshold: new weights alone lead to a rebalance when the fullest worker exceeds the fair
	// level by more than this share. 0 to 1. Default 0.2.
	MinThreshold float64
	// RestartRatio: when more than this share of the workers goes missing within one TTL, it is a
	// restart. 0 to 1. Default 0.5.
	RestartRatio float64
	// ColdStartWindow is how long to wait for more workers when starting from none, and after a
	// mass loss. Default 30 s.
	ColdStartWindow time.Duration
	// PlannedScaleWindow is how long to wait for more workers after the first joined. Default 10 s.
	PlannedScaleWindow time.Duration

	// Source tells the partitions. Without one they are pushed with [Calculator.SetPartitions].
	Source PartitionSource
	// Strategy divides them. Default: the library's, named by the setting "strategy" (sticky).
	Strategy AssignmentStrategy
	// Logger takes what the library tells. The library has one logger for the whole process: the
	// one set last. Default: what is set already, or silence.
	Logger Logger
	// Metrics is told what the calculator does, and what its plans, a manager and its worker do where
	// it is an [AssignmentMetrics], a [ManagerMetrics] or a [WorkerMetrics], too. Default: nobody.
	Metrics CalculatorMetrics

	// Settings are any further settings of the library by name, such as {"strategy": "round_robin",
	// "leave_window": "2s"}; an unknown one is an error that names the nearest.
	Settings map[string]string
}

// SetDefaults gives every field that is zero its default.
func (c *Config) SetDefaults() {
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	duration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	number := func(field *float64, value float64) {
		if *field == 0 {
			*field = value
		}
	}
	text(&c.AssignmentPrefix, "assignment")
	text(&c.HeartbeatPrefix, "heartbeat")
	duration(&c.HeartbeatTTL, 6*time.Second)
	duration(&c.EmergencyGracePeriod, 5*time.Second)
	duration(&c.Cooldown, 10*time.Second)
	duration(&c.ColdStartWindow, 30*time.Second)
	duration(&c.PlannedScaleWindow, 10*time.Second)
	number(&c.MinThreshold, 0.2)
	number(&c.RestartRatio, 0.5)
}

// settings is every setting by its name in the library.
func (c *Config) settings() map[string]string {
	full := *c
	full.SetDefaults()
	number := func(value float64) string { return strconv.FormatFloat(value, 'g', -1, 64) }
	settings := map[string]string{
		"assignment_prefix":       full.AssignmentPrefix,
		"heartbeat_prefix":        full.HeartbeatPrefix,
		"heartbeat_ttl":           full.HeartbeatTTL.String(),
		"emergency_grace_period":  full.EmergencyGracePeriod.String(),
		"cooldown":                full.Cooldown.String(),
		"min_rebalance_threshold": number(full.MinThreshold),
		"restart_ratio":           number(full.RestartRatio),
		"cold_start_window":       full.ColdStartWindow.String(),
		"planned_scale_window":    full.PlannedScaleWindow.String(),
	}
	for key, value := range c.Settings {
		settings[key] = value
	}
	return settings
}

// NATSOptions is how to reach a NATS server with JetStream. The zero value of every field but URLs
// means the default.
type NATSOptions struct {
	// URLs of the servers: nats://host:port, tls://host:port or host:port. At least one.
	URLs []string
	// Name of the client as operators of the server see it.
	Name string

	// User and Password, or Token, or CredsFile (JWT and NKey seed), or NKeySeed.
	User, Password string
	Token          string
	CredsFile      string
	NKeySeed       string

	// TLSRequired refuses servers without TLS. CAFiles are trusted instead of the system's
	// authorities; CertFile and KeyFile are the client's own.
	TLSRequired       bool
	CAFiles           []string
	CertFile, KeyFile string

	// HeartbeatBucket and AssignmentBucket; defaults parti-heartbeat and parti-assignment.
	HeartbeatBucket, AssignmentBucket string
	// StableIDBucket and ElectionBucket, of managers; defaults parti-stableid and parti-election.
	StableIDBucket, ElectionBucket string
	// ManageBuckets says what may be done to the buckets: "create" creates missing ones and leaves
	// existing ones as they are, "upgrade" also switches on server features that every server of the
	// cluster supports, "never" changes nothing. Default "create".
	ManageBuckets string
	// Replicas of each bucket that is created, 1 to 5. Default 1.
	Replicas int

	// Settings are any further settings by name, such as {"nats_stale_limit": "5s"}.
	Settings map[string]string
}

func (o *NATSOptions) settings() (map[string]string, error) {
	if len(o.URLs) == 0 {
		return nil, &Error{Code: codeInvalidConfig, Op: "connect", Message: "URLs is empty: give at least one server"}
	}
	settings := map[string]string{"nats_url": strings.Join(o.URLs, ",")}
	set := func(key, value string) {
		if value != "" {
			settings[key] = value
		}
	}
	set("nats_name", o.Name)
	set("nats_user", o.User)
	set("nats_password", o.Password)
	set("nats_token", o.Token)
	set("nats_creds", o.CredsFile)
	set("nats_nkey_seed", o.NKeySeed)
	set("nats_tls_ca", strings.Join(o.CAFiles, ","))
	set("nats_tls_cert", o.CertFile)
	set("nats_tls_key", o.KeyFile)
	set("heartbeat_bucket", o.HeartbeatBucket)
	set("assignment_bucket", o.AssignmentBucket)
	set("stable_id_bucket", o.StableIDBucket)
	set("election_bucket", o.ElectionBucket)
	if o.TLSRequired {
		settings["nats_tls_required"] = "true"
	}
	set("nats_manage_buckets", o.ManageBuckets)
	if o.Replicas != 0 {
		settings["nats_replicas"] = fmt.Sprint(o.Replicas)
	}
	for key, value := range o.Settings {
		settings[key] = value
	}
	return settings, nil
}
