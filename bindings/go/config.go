package divvy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Config configures a calculator. In a literal, the zero value of every field except Store means its
// default. To use zero itself, start from [DefaultConfig]: there every field has its default and
// means what it says. A default follows the fields that are set: if only ColdStartWindow is set,
// PlannedScaleWindow and Cooldown do not exceed it.
type Config struct {
	// Store is the store of the fleet, from [ConnectNATS] or [NewMemoryStore]. Required.
	Store *Store

	// AssignmentPrefix and HeartbeatPrefix are the prefixes of the keys in the buckets. Defaults
	// "assignment" and "heartbeat".
	AssignmentPrefix string
	HeartbeatPrefix  string

	// HeartbeatTTL is the time without a heartbeat after which a worker is suspected. Default 6 s.
	HeartbeatTTL time.Duration
	// EmergencyGracePeriod is the time after which a suspected worker is declared dead. Default 5
	// s.
	EmergencyGracePeriod time.Duration
	// Cooldown is the minimum time between publications. Emergencies, leaves and manual triggers
	// bypass it. Default 10 s.
	Cooldown time.Duration
	// MinThreshold is the fraction by which the most loaded worker must exceed the fair level before a
	// change of weights alone triggers a rebalance. 0 to 1. Default 0.2.
	MinThreshold float64
	// RestartRatio is the share of workers that must disappear within one TTL to count as a
	// restart. 0 to 1. Default 0.5.
	RestartRatio float64
	// InitialDelay is how long a fleet that has no plan yet waits for more workers before its first
	// plan. Each join starts it again, up to ColdStartWindow after the first worker. Default 3 s.
	InitialDelay time.Duration
	// MinWorkers: a fleet that has no plan yet gets its first one when this many workers are alive. 1
	// or more. Default 1.
	MinWorkers int
	// ColdStartWindow is how long to wait for workers after a start without workers and after a
	// mass expiry. Default 30 s.
	ColdStartWindow time.Duration
	// PlannedScaleWindow is how long to wait for more joins after the first. Default 10 s.
	PlannedScaleWindow time.Duration
	// RecoveryGrace is added to HeartbeatTTL after an outage before a worker can be suspected.
	// Default 2.5 x HeartbeatTTL.
	RecoveryGrace time.Duration

	// Source lists the partitions. Without a source, push the list with [Calculator.SetPartitions].
	Source PartitionSource
	// Strategy computes the plans. Default: the strategy of the library named by the setting
	// "strategy" (sticky).
	Strategy AssignmentStrategy
	// Logger receives the log records of the library. There is one logger per process: the one set
	// last. Default: the logger already set, or none.
	Logger Logger
	// Metrics receives calculator events. If it also implements [AssignmentMetrics],
	// [ManagerMetrics] or [WorkerMetrics], it receives those events too. Default: none.
	Metrics CalculatorMetrics

	// Settings sets any other setting of the library by name, such as {"strategy": "round_robin",
	// "leave_window": "2s"}. An unknown name is an error that suggests the nearest one.
	Settings map[string]string

	// defaults is what DefaultConfig returned; nil for a literal.
	defaults *Config
}

// DefaultConfig returns a configuration in which every field has its default. Fields that are changed
// afterwards mean what they say, zero included.
func DefaultConfig() Config {
	var config Config
	config.SetDefaults()
	defaults := config
	config.defaults = &defaults
	return config
}

// SetDefaults replaces zero fields of a literal with their defaults. After [DefaultConfig] it does
// nothing, and without cgo it does nothing either.
func (c *Config) SetDefaults() {
	if c.defaults == nil {
		fill(c.fields(), c.Describe)
	}
}

// configField is a field with the name of its setting. at points to a string, a number or a
// duration.
type configField struct {
	name string
	at   any
}

func (c *Config) fields() []configField {
	return []configField{
		{"assignment_prefix", &c.AssignmentPrefix},
		{"heartbeat_prefix", &c.HeartbeatPrefix},
		{"heartbeat_ttl", &c.HeartbeatTTL},
		{"emergency_grace_period", &c.EmergencyGracePeriod},
		{"cooldown", &c.Cooldown},
		{"min_rebalance_threshold", &c.MinThreshold},
		{"restart_ratio", &c.RestartRatio},
		{"initial_delay", &c.InitialDelay},
		{"min_workers", &c.MinWorkers},
		{"cold_start_window", &c.ColdStartWindow},
		{"planned_scale_window", &c.PlannedScaleWindow},
		{"recovery_grace", &c.RecoveryGrace},
	}
}

// settings returns the settings that are set, by name.
func (c *Config) settings() map[string]string {
	var defaults []configField
	if c.defaults != nil {
		defaults = c.defaults.fields()
	}
	return settingsOf(c.fields(), defaults, c.Settings)
}

// settingsOf returns the fields that differ from their defaults, or that are not zero where there
// are no defaults, and then the named settings.
func settingsOf(fields, defaults []configField, named map[string]string) map[string]string {
	settings := make(map[string]string)
	for i, field := range fields {
		value, isZero := field.text()
		isSet := !isZero
		if defaults != nil {
			standard, _ := defaults[i].text()
			isSet = value != standard
		}
		if isSet {
			settings[field.name] = value
		}
	}
	for name, value := range named {
		settings[name] = value
	}
	return settings
}

// fill replaces zero fields with the values that describe returns.
func fill(fields []configField, describe func() ([]Setting, error)) {
	described, err := describe()
	if err != nil {
		return // reported when the configuration is used
	}
	values := make(map[string]string, len(described))
	for _, setting := range described {
		values[setting.Name] = setting.Value
	}
	for _, field := range fields {
		if _, isZero := field.text(); isZero {
			field.read(values[field.name])
		}
	}
}

func (f configField) text() (text string, isZero bool) {
	switch at := f.at.(type) {
	case *time.Duration:
		return at.String(), *at == 0
	case *float64:
		return strconv.FormatFloat(*at, 'g', -1, 64), *at == 0
	case *int:
		return strconv.Itoa(*at), *at == 0
	case *OutagePolicy:
		return string(*at), *at == ""
	case *string:
		return *at, *at == ""
	default:
		panic(fmt.Sprintf("divvy: %s has type %T", f.name, at))
	}
}

// read parses a value as the library prints it.
func (f configField) read(text string) {
	switch at := f.at.(type) {
	case *time.Duration:
		*at, _ = time.ParseDuration(text)
	case *float64:
		*at, _ = strconv.ParseFloat(text, 64)
	case *int:
		*at, _ = strconv.Atoi(text)
	case *OutagePolicy:
		*at = OutagePolicy(text)
	case *string:
		*at = text
	}
}

// NATSCredentials are the credentials of one login: a token, or a user JWT with a signature.
type NATSCredentials struct {
	Token string
	// JWT is the user JWT in its text form, and Signature the Ed25519 signature of the nonce by the
	// user's key, 64 bytes.
	JWT       string
	Signature []byte
}

// NATSOptions configures the connection to NATS. The zero value of every field except URLs means
// its default.
type NATSOptions struct {
	// URLs of the servers: nats://host:port, tls://host:port or host:port. At least one.
	URLs []string
	// Name is the client name in the server's monitoring.
	Name string

	// User and Password, or Token, or CredsFile (JWT and NKey seed), or NKeySeed authenticate the
	// client.
	User, Password string
	Token          string
	CredsFile      string
	NKeySeed       string
	// Credentials supplies the credentials of each login, at each connect and reconnect, instead of the
	// fields above. nonce is what the server wants signed. One call is made at a time. Until it returns,
	// the store is disconnected, and Close waits up to 5 s for it. The context ends when the store is
	// closed, or when the context of [ConnectNATS] ends before the first connection. After an error the
	// login fails: at the first connect with ErrUnauthorized, later it is retried.
	Credentials func(ctx context.Context, nonce []byte) (NATSCredentials, error)

	// TLSRequired rejects servers without TLS. TLSFirst performs the TLS handshake before the
	// server's greeting, for servers with handshake_first. CAFiles replace the system's certificate
	// authorities. CertFile and KeyFile authenticate the client. Each of the other three implies
	// TLSRequired.
	TLSRequired, TLSFirst bool
	CAFiles               []string
	CertFile, KeyFile     string

	// InboxPrefix is the first part of the subjects that replies and changes arrive on. Default
	// _INBOX. The account must allow the client to subscribe to InboxPrefix.>.
	InboxPrefix string

	// Fleet is the name of the fleet, from which the bucket names follow: divvy-<Fleet>-…. A worker
	// does not join buckets of another fleet (ErrWrongFleet). Empty: parti's bucket names.
	Fleet string
	// HeartbeatBucket and AssignmentBucket; defaults parti-heartbeat and parti-assignment.
	HeartbeatBucket, AssignmentBucket string
	// StableIDBucket and ElectionBucket, of managers; defaults parti-stableid and parti-election.
	StableIDBucket, ElectionBucket string
	// ManageBuckets says what may be done to the buckets: "create" creates missing ones and leaves
	// existing ones as they are, "upgrade" also switches on server features that every server of the
	// cluster supports, "never" changes nothing. Default "create".
	ManageBuckets string
	// Replicas is the number of replicas of created buckets, 1 to 5. Default 1.
	Replicas int
	// MaxBytes is the size limit of each bucket that is created. Default: none.
	MaxBytes int64
	// PlacementCluster and PlacementTags say which servers may keep the buckets that are created.
	// Default: any.
	PlacementCluster string
	PlacementTags    []string

	// CacheFile is a file in which the manager on this store keeps its assignment, so that
	// ConnectNATS and Start succeed while the servers cannot be reached: Start then returns with the
	// assignment in the file (lifecycle "cached", state Degraded). Use one file per worker.
	// OutageStrict rejects it. Default "": none.
	CacheFile string

	// Settings sets any other setting by name, such as {"nats_stale_limit": "5s"}.
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
	set("cache_file", o.CacheFile)
	set("nats_name", o.Name)
	set("nats_user", o.User)
	set("nats_password", o.Password)
	set("nats_token", o.Token)
	set("nats_creds", o.CredsFile)
	set("nats_nkey_seed", o.NKeySeed)
	set("nats_tls_ca", strings.Join(o.CAFiles, ","))
	set("nats_tls_cert", o.CertFile)
	set("nats_tls_key", o.KeyFile)
	set("nats_inbox_prefix", o.InboxPrefix)
	set("nats_placement_cluster", o.PlacementCluster)
	set("nats_placement_tags", strings.Join(o.PlacementTags, ","))
	set("fleet", o.Fleet)
	set("heartbeat_bucket", o.HeartbeatBucket)
	set("assignment_bucket", o.AssignmentBucket)
	set("stable_id_bucket", o.StableIDBucket)
	set("election_bucket", o.ElectionBucket)
	if o.TLSRequired {
		settings["nats_tls_required"] = "true"
	}
	set("nats_manage_buckets", o.ManageBuckets)
	if o.TLSFirst {
		settings["nats_tls_first"] = "true"
	}
	if o.MaxBytes != 0 {
		settings["nats_max_bytes"] = fmt.Sprint(o.MaxBytes)
	}
	if o.Replicas != 0 {
		settings["nats_replicas"] = fmt.Sprint(o.Replicas)
	}
	for key, value := range o.Settings {
		settings[key] = value
	}
	return settings, nil
}
