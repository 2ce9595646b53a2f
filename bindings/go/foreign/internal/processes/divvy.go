package processes

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/divvy-rs/divvy/bindings/go/foreign/predecessor"
)

// Grace of a divvy leader, from suspected to dead.
const Grace = 300 * time.Millisecond

// Settings are the settings of divvy's workers in a fleet: the strategy and times of the
// predecessor.
func Settings() map[string]string {
	return map[string]string{
		"strategy":               "consistent_hash",
		"heartbeat_interval":     HeartbeatInterval.String(),
		"heartbeat_ttl":          HeartbeatTTL.String(),
		"emergency_grace_period": Grace.String(),
		"worker_id_ttl":          IDTTL.String(),
		"election_timeout":       ElectionTTL.String(),
		"cold_start_window":      Window.String(),
		"planned_scale_window":   Window.String(),
		"cooldown":               "100ms",
		"leave_window":           "50ms",
		"recovery_grace":         "300ms",
	}
}

// Never are the settings of a divvy worker that never leads.
func Never() map[string]string { return map[string]string{"may_lead": "false"} }

// StartDivvy starts a `divvy worker` and waits until it has an id. departure is the effect of
// SIGTERM: leave or restart.
func (f *Fleet) StartDivvy(departure string, settings map[string]string) *Member {
	f.t.Helper()
	arguments := []string{
		"worker", "--json", "--nats", f.URL, "--partitions", f.partitionsFile(), "--departure", departure,
	}
	named := map[string]string{
		"worker_id_prefix": f.names.Workers, "stable_id_bucket": f.IDs.Bucket(),
		"election_bucket": f.Election.Bucket(), "heartbeat_bucket": f.Heartbeats.Bucket(),
		"assignment_bucket": f.Assigned.Bucket(),
	}
	for _, some := range []map[string]string{Settings(), named, settings} {
		for name, value := range some {
			arguments = append(arguments, "--set", name+"="+value)
		}
	}
	leads := false
	m := f.run(exec.Command(divvyBinary(f), arguments...), func(text []byte, say func(Line)) {
		for _, line := range translate(text, &leads) {
			say(line)
		}
	})
	m.IsDivvys = true
	return m
}

// translate converts a line of `divvy worker` to a [Line].
func translate(text []byte, leads *bool) []Line {
	var reported struct {
		Kind, Worker, Lifecycle, Reason, Message string
		IsLeader                                 bool `json:"is_leader"`
		Version, Term                            int64
		Partitions                               []predecessor.Partition
	}
	if err := json.Unmarshal(text, &reported); err != nil {
		return []Line{{Line: predecessor.Line{Event: "failed"}, Detail: fmt.Sprintf("%v: %s", err, text)}}
	}
	line := Line{Line: predecessor.Line{Worker: reported.Worker, Version: reported.Version}, Term: reported.Term}
	switch reported.Kind {
	case "worker_id":
		line.Event = "claimed"
		if reported.Worker == "" {
			line.Event = "without"
		}
	case "worker_id_lost":
		line.Event = "lost"
	case "leader":
		if reported.IsLeader == *leads {
			return nil
		}
		*leads = reported.IsLeader
		line.Event = "follows"
		if reported.IsLeader {
			line.Event = "leads"
		}
	case "assignment":
		line.Event, line.Lifecycle = "holds", reported.Lifecycle
		for _, partition := range reported.Partitions {
			line.Partitions = append(line.Partitions, partition.ID())
		}
	case "published":
		line.Event, line.Lifecycle = "published", reported.Reason
	case "manager_failed":
		line.Event, line.Detail = "failed", reported.Message
	default:
		return nil
	}
	return []Line{line}
}

// divvyBinary returns the command: DIVVY, or the one that was built last.
func divvyBinary(f *Fleet) string {
	f.t.Helper()
	if binary := os.Getenv("DIVVY"); binary != "" {
		return binary
	}
	folder, err := os.Getwd()
	for ; err == nil && folder != "/"; folder = filepath.Dir(folder) {
		var newest string
		var built time.Time
		for _, profile := range []string{"debug", "release"} {
			binary := filepath.Join(folder, "target", profile, "divvy")
			if found, err := os.Stat(binary); err == nil && found.ModTime().After(built) {
				newest, built = binary, found.ModTime()
			}
		}
		if newest != "" {
			return newest
		}
	}
	f.t.Fatal("no divvy command: run `make test-go`, which builds it, or set DIVVY")
	return ""
}
