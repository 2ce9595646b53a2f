package predecessor_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/processes"
	"github.com/nats-io/nats.go"
)

func TestPredecessorFleetDividesPartitionsAndSurvivesLeaderLoss(t *testing.T) {
	f := processes.NewFleet(t, "../cmd/predecessor")
	members := []*processes.Member{f.Start(), f.Start(), f.Start()}
	ids := []string{members[0].ID(), members[1].ID(), members[2].ID()}
	if !slices.Equal(ids, []string{"worker-0", "worker-1", "worker-2"}) {
		t.Fatalf("ids %q", ids)
	}
	processes.Until(t, "all partitions owned", func() bool { return processes.Owned(members...) })
	first := processes.Leader(members...)
	entry, err := f.Election.Get("leader")
	processes.Must(t, err)
	if name, seconds, _ := strings.Cut(string(entry.Value()), ":"); name != first.ID() || len(seconds) != 10 {
		t.Fatalf("the lease says %q", entry.Value())
	}
	processes.Until(t, "a version", func() bool { return first.Published() > 0 })
	before := first.Published()
	first.End(syscall.SIGKILL)
	rest := processes.Without(first, members...)
	processes.Until(t, "another leader", func() bool { return processes.Leader(rest...) != nil })
	processes.Until(t, "all partitions owned without the first leader", func() bool { return processes.Owned(rest...) })
	processes.Until(t, "a higher version", func() bool { return processes.Leader(rest...).Published() > before })
	// It deletes the assignment of the dead worker after it has written those of the others.
	processes.Until(t, "no assignment for the dead worker", func() bool {
		_, err := f.Assigned.Get("assignment." + first.ID())
		return errors.Is(err, nats.ErrKeyNotFound)
	})
}

func TestTerminatedProcessLeavesGracefully(t *testing.T) {
	f := processes.NewFleet(t, "../cmd/predecessor")
	first := f.Start()
	processes.Until(t, "a leader", func() bool { return processes.Owned(first) })
	second := f.Start("-lead", "never")
	processes.Until(t, "both hold some", func() bool { return processes.Owned(first, second) })
	second.End(syscall.SIGTERM)
	for what, bucket := range map[string]nats.KeyValue{"heartbeat.worker-1": f.Heartbeats, "worker-1": f.IDs} {
		if _, err := bucket.Get(what); err == nil {
			t.Errorf("%s is still there", what)
		}
	}
	processes.Until(t, "the rest holds all", func() bool { return processes.Owned(first) })
	first.End(syscall.SIGTERM)
	if _, err := f.Election.Get("leader"); err == nil {
		t.Error("the lease is still there")
	}
}

func TestNonLeadingProcessLeavesLeadershipVacant(t *testing.T) {
	f := processes.NewFleet(t, "../cmd/predecessor")
	follower := f.Start("-lead", "never")
	leading := f.Start()
	processes.Until(t, "all partitions owned", func() bool { return processes.Owned(follower, leading) })
	if follower.Last("leads") != nil || processes.Leader(follower, leading) != leading {
		t.Fatal("the wrong one leads")
	}
}

// The faults that divvy must tolerate in a mixed fleet.
func TestDeposedPredecessorKeepsWritingWithoutTermsForAWhile(t *testing.T) {
	f := processes.NewFleet(t, "../cmd/predecessor")
	_, err := f.Assigned.PutString("assignment.worker-9", `{"version":41,"term":7,"lifecycle":"restart","partitions":[]}`)
	processes.Must(t, err)
	_, err = f.Assigned.PutString("divvy.fence", `{"term":7,"leader":"other"}`)
	processes.Must(t, err)
	first := f.Start("-linger", "1s")
	processes.Until(t, "all partitions owned", func() bool { return processes.Owned(first) })
	entry, err := f.Assigned.Get("assignment.worker-0")
	processes.Must(t, err)
	if value := string(entry.Value()); !strings.HasPrefix(value, `{"version":42,"lifecycle":"cold_start","partitions":[{"keys":["tool",`) ||
		strings.Contains(value, "term") {
		t.Fatalf("it wrote %s", value)
	}
	fence, err := f.Assigned.Get("divvy.fence")
	processes.Must(t, err)
	if string(fence.Value()) != `{"term":7,"leader":"other"}` {
		t.Fatalf("it touched the fence: %s", fence.Value())
	}
	// Its renewal is a read and a put: it may overwrite the rival's lease once, but not forever.
	processes.Until(t, "it follows", func() bool {
		_, _ = f.Election.PutString("leader", "worker-5:1700000000")
		return first.Last("follows") != nil
	})
	processes.Until(t, "a last publication", func() bool { return first.Published() == 43 })
}
