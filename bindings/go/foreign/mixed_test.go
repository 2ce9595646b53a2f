package foreign

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/processes"
	"github.com/nats-io/nats.go"
)

type tools struct{}

func (tools) ListPartitions(context.Context) ([]divvy.Partition, error) {
	var list []divvy.Partition
	for _, partition := range processes.Partitions() {
		list = append(list, divvy.Partition{Keys: partition.Keys, Weight: partition.Weight})
	}
	return list, nil
}

// calculatorFor returns a divvy calculator for a fleet of the predecessor, with the predecessor's
// strategy.
func calculatorFor(t testing.TB, fleet *processes.Fleet, settings map[string]string) *divvy.Calculator {
	t.Helper()
	store, err := divvy.ConnectNATS(patient(t), divvy.NATSOptions{
		URLs: []string{fleet.URL}, Settings: map[string]string{"nats_manage_buckets": "never"},
	})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	all := map[string]string{"strategy": "consistent_hash", "leave_window": "50ms"}
	for name, value := range settings {
		all[name] = value
	}
	calculator, err := divvy.NewCalculator(&divvy.Config{
		Store: store, Source: tools{}, Settings: all,
		HeartbeatTTL: processes.HeartbeatTTL, EmergencyGracePeriod: 300 * time.Millisecond,
		Cooldown: 100 * time.Millisecond, ColdStartWindow: 300 * time.Millisecond,
		PlannedScaleWindow: 300 * time.Millisecond,
	})
	must(t, err)
	t.Cleanup(func() { must(t, calculator.Close()) })
	return calculator
}

func TestShadowFollowsPredecessorLeaderAndWritesNothing(t *testing.T) {
	fleet := processes.NewFleet(t, "./cmd/predecessor")
	members := []*processes.Member{fleet.Start(), fleet.Start("-lead", "never")}
	until(t, "all partitions owned", func() bool { return processes.Owned(members...) })
	shadow := calculatorFor(t, fleet, map[string]string{"shadow": "true"})
	subscription, err := shadow.Subscribe()
	must(t, err)
	must(t, shadow.Start(patient(t)))
	members = append(members, fleet.Start("-lead", "never"))
	wanted := patient(t)
	for {
		var event divvy.Event
		select {
		case event = <-subscription.C:
		case <-wanted.Done():
			t.Fatal("no comparison")
		}
		if event.Kind != divvy.EventLeaderPublished || event.Workers != 3 {
			continue
		}
		if event.Partitions != processes.PartitionCount || !strings.HasSuffix(event.Message, "both plans are the same") {
			t.Fatalf("%+v", event)
		}
		break
	}
	until(t, "all partitions owned by three", func() bool { return processes.Owned(members...) })
	for _, key := range []string{"divvy.fence", "divvy.commit"} {
		if _, err := fleet.Assigned.Get(key); !errors.Is(err, nats.ErrKeyNotFound) {
			t.Errorf("a shadow wrote %s", key)
		}
	}
}

func TestLeadershipPassesFromPredecessorToDivvyAndBack(t *testing.T) {
	fleet := processes.NewFleet(t, "./cmd/predecessor")
	leader := fleet.Start()
	followers := []*processes.Member{fleet.Start("-lead", "never"), fleet.Start("-lead", "never")}
	until(t, "all partitions owned", func() bool { return processes.Owned(append(followers, leader)...) })
	until(t, "the leader has published", func() bool { return leader.Published() > 0 })
	version := leader.Published()
	leader.End(syscall.SIGKILL)
	calculator := calculatorFor(t, fleet, nil)
	must(t, calculator.Start(patient(t)))
	until(t, "divvy divides among the rest", func() bool { return processes.Owned(followers...) })
	// The workers may receive their assignments a moment before the calculator has recorded the
	// publication.
	until(t, "a higher version", func() bool { return calculator.CurrentVersion() > version })
	must(t, calculator.Stop(patient(t)))
	version = calculator.CurrentVersion()
	last := fleet.Start()
	all := append(followers, last)
	until(t, "the predecessor divides among all", func() bool { return processes.Owned(all...) })
	until(t, "a higher version once more", func() bool { return last.Published() > version })
	// divvy's own records are unchanged.
	entry, err := fleet.Assigned.Get("divvy.fence")
	must(t, err)
	if !strings.HasPrefix(string(entry.Value()), `{"term":1,`) {
		t.Fatalf("the fence says %s", entry.Value())
	}
}
