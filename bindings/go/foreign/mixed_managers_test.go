package foreign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/processes"
	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
	"github.com/divvy-rs/divvy/bindings/go/foreign/predecessor"
)

// mixed is a fleet of processes of the predecessor and workers of divvy, some in their own
// processes and some as managers in this one, with a ledger of all assignments.
type mixed struct {
	*processes.Fleet
	*processes.Ledger
	t testing.TB
}

func newMixed(t testing.TB, url string) *mixed {
	t.Helper()
	return mixedOf(t, processes.NewFleetOn(t, url, "./cmd/predecessor"))
}

func mixedOf(t testing.TB, fleet *processes.Fleet) *mixed {
	t.Helper()
	f := &mixed{Fleet: fleet, Ledger: fleet.Watch(), t: t}
	t.Cleanup(func() {
		if t.Failed() {
			f.Ledger.Log()
			f.Fleet.Log()
		}
	})
	return f
}

// manager creates a manager in this process with its own store.
func (f *mixed) manager(settings map[string]string) (*divvy.Store, *divvy.Manager) {
	f.t.Helper()
	store, err := divvy.ConnectNATS(patient(f.t), divvy.NATSOptions{URLs: []string{f.URL}})
	must(f.t, err)
	all := processes.Settings()
	for name, value := range settings {
		all[name] = value
	}
	manager, err := divvy.NewManager(&divvy.ManagerConfig{
		Config: divvy.Config{Store: store, Source: tools{}, Settings: all},
	})
	must(f.t, err)
	return store, manager
}

// manage starts a manager in this process: SIGTERM leaves, SIGSTOP stops it for a restart.
func (f *mixed) manage(settings map[string]string) *processes.Member {
	f.t.Helper()
	store, manager := f.manager(settings)
	events, err := manager.Subscribe()
	must(f.t, err)
	departed := make(chan struct{})
	m := f.Join(func(syscall.Signal) { f.t.Fatal("a manager has no process of its own") },
		func(how syscall.Signal) {
			departure := divvy.Leave
			if how == syscall.SIGSTOP {
				departure = divvy.Restart
			}
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			must(f.t, manager.Stop(ctx, departure))
			<-departed
			must(f.t, manager.Close())
			must(f.t, store.Close())
		})
	m.IsDivvys = true
	go func() {
		defer close(departed)
		leads := false
		for event := range events.C {
			say(m, event, &leads)
		}
	}()
	must(f.t, manager.Start(patient(f.t)))
	until(f.t, "an id", func() bool { return m.ID() != "" })
	return m
}

func say(m *processes.Member, event divvy.ManagerEvent, leads *bool) {
	line := processes.Line{Line: predecessor.Line{Worker: event.Worker}}
	switch event.Kind {
	case divvy.EventWorkerID:
		line.Event = "claimed"
		if event.Worker == "" {
			line.Event = "without"
		}
	case divvy.EventWorkerIDLost:
		line.Event = "lost"
	case divvy.EventLeader:
		if event.IsLeader == *leads {
			return
		}
		*leads = event.IsLeader
		line.Event = "follows"
		if event.IsLeader {
			line.Event = "leads"
		}
	case divvy.EventAssignment:
		line.Event = "holds"
		line.Version, line.Term, line.Lifecycle = event.Change.Version, event.Change.Term, event.Change.Lifecycle
		for _, partition := range event.Change.Partitions {
			line.Partitions = append(line.Partitions, strings.Join(partition.Keys, "."))
		}
	case divvy.EventManagerFailed:
		line.Event, line.Detail = "failed", event.Err.Error()
	default:
		return
	}
	m.Say(line)
}

// converge waits until each partition has one owner among these, each of which owns some under its
// own id, by their reports and by the stored assignments. It returns the highest version then.
func (f *mixed) converge(what string, members ...*processes.Member) int64 {
	f.t.Helper()
	var why string
	end := time.Now().Add(processes.Timeout)
	for ; time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if why = f.unsettled(members); why == "" {
			return f.Highest()
		}
	}
	f.t.Fatalf("%s: did not converge: %s", what, why)
	return 0
}

func (f *mixed) unsettled(members []*processes.Member) string {
	var ids []string
	for _, member := range members {
		if len(member.Held()) == 0 {
			return member.ID() + " holds nothing"
		}
		ids = append(ids, member.ID())
	}
	slices.Sort(ids)
	if slices.Contains(ids, "") || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		return fmt.Sprintf("ids %q", ids)
	}
	if !processes.Owned(members...) {
		return "not every partition has one owner"
	}
	keys, err := f.Assigned.Keys()
	if err != nil {
		return err.Error()
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, "assignment.") })
	slices.Sort(keys)
	if !slices.EqualFunc(keys, ids, func(key, id string) bool { return key == "assignment."+id }) {
		return fmt.Sprintf("assignments %q for %q", keys, ids)
	}
	if processes.Leader(members...) == nil {
		return "no leader"
	}
	return ""
}

// losesNothing runs a step. Until the returned function is called, each of these must keep at least
// its former partitions.
func losesNothing(t testing.TB, members []*processes.Member) func() {
	t.Helper()
	type before struct {
		lines int
		held  []string
	}
	befores := map[*processes.Member]before{}
	for _, member := range members {
		befores[member] = before{len(member.Said("holds")), member.Held()}
	}
	return func() {
		t.Helper()
		for member, before := range befores {
			for _, line := range member.Said("holds")[before.lines:] {
				for _, partition := range before.held {
					if !slices.Contains(line.Partitions, partition) {
						t.Errorf("%s loses %s in version %d, term %d", member.ID(), partition, line.Version, line.Term)
					}
				}
			}
		}
	}
}

func (f *mixed) verify(expected ...string) {
	f.t.Helper()
	f.Fleet.Verify(expected...)
	f.Ledger.Verify()
}

func TestDivvyWorkersServeUnderPredecessorLeader(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	leader := f.Start()
	f.converge("alone", leader)
	killed, kept, left := f.StartDivvy("leave", nil), f.StartDivvy("restart", nil), f.manage(nil)
	f.converge("three of divvy's join", leader, killed, kept, left)
	for _, member := range []*processes.Member{killed, kept, left} {
		if held := member.Last("holds"); held.Term != 0 {
			t.Errorf("a leader without terms wrote %+v", held)
		}
	}
	killed.End(syscall.SIGKILL)
	f.converge("one is killed", leader, kept, left)
	left.End(syscall.SIGTERM)
	before := f.converge("one leaves", leader, kept)

	// A restart: the id remains reserved and returns to the divvy worker; no partition moves.
	id, held, stays := kept.ID(), kept.Held(), losesNothing(t, []*processes.Member{leader})
	kept.End(syscall.SIGTERM)
	if entry, err := f.IDs.Get(id); err != nil || !strings.HasSuffix(string(entry.Value()), " kept") {
		t.Fatalf("the id is not kept: %v", err)
	}
	again := f.StartDivvy("leave", nil)
	after := f.converge("the same again", leader, again)
	stays()
	if again.ID() != id || !slices.Equal(again.Held(), held) || after != before {
		t.Errorf("%s holds %q in version %d; it was %s with %q in %d", again.ID(), again.Held(), after, id, held, before)
	}
	again.End(syscall.SIGTERM)
	f.converge("alone again", leader)
	until(t, "its own version as the last", func() bool { return leader.Published() == f.Highest() })
	if _, err := f.Assigned.Get("divvy.fence"); err == nil {
		t.Error("a follower wrote a fence")
	}
	f.verify()
}

func TestLeadershipAlternatesAndVersionsOnlyIncrease(t *testing.T) {
	for _, url := range servers.Kinds(t) {
		t.Run(url.Version, func(t *testing.T) {
			t.Parallel()
			passBackAndForth(t, url.URL)
		})
	}
}

func passBackAndForth(t *testing.T, url string) {
	f := newMixed(t, url)
	leader := f.Start()
	followers := []*processes.Member{f.Start("-lead", "never"), f.StartDivvy("leave", processes.Never())}
	version := f.converge("a leader of the predecessor", append(followers, leader)...)
	steps := []struct {
		what string
		how  syscall.Signal
		next func() *processes.Member
	}{
		{"the predecessor's leader is killed, a process of divvy's takes over", syscall.SIGKILL,
			func() *processes.Member { return f.StartDivvy("leave", nil) }},
		{"divvy's leader is killed, the predecessor takes over", syscall.SIGKILL,
			func() *processes.Member { return f.Start() }},
		{"the predecessor's leader leaves, a manager takes over", syscall.SIGTERM,
			func() *processes.Member { return f.manage(nil) }},
		{"a manager that leads leaves, the predecessor takes over", syscall.SIGTERM,
			func() *processes.Member { return f.Start() }},
		{"the predecessor's leader crashes, a manager takes over", syscall.SIGKILL,
			func() *processes.Member { return f.manage(nil) }},
		{"a manager hands over to a process of divvy's", syscall.SIGTERM,
			func() *processes.Member { return f.StartDivvy("leave", nil) }},
		{"divvy's leader leaves, the predecessor takes over", syscall.SIGTERM,
			func() *processes.Member { return f.Start() }},
	}
	for _, step := range steps {
		next := step.next()
		f.converge(step.what+": before", append(followers, leader, next)...)
		if !leader.IsLeader() || next.IsLeader() {
			t.Fatalf("%s: the wrong one leads", step.what)
		}
		check := losesNothing(t, append(followers, next))
		leader.End(step.how)
		after := f.converge(step.what, append(followers, next)...)
		check()
		if after <= version {
			t.Errorf("%s: version %d after %d", step.what, after, version)
		}
		wrote := followers[1].Last("holds")
		if isTermed := wrote.Term != 0; isTermed != next.IsDivvys {
			t.Errorf("%s: it holds %+v", step.what, wrote)
		}
		leader, version = next, after
	}
	f.verify()
}

// depose freezes a leader of the predecessor until another process leads, and resumes it.
func (f *mixed) depose(leader, successor *processes.Member, others ...*processes.Member) {
	f.t.Helper()
	leader.Signal(syscall.SIGSTOP)
	f.converge("the successor leads", append(others, successor)...)
	if !successor.IsLeader() {
		f.t.Fatal("the wrong one leads")
	}
	leader.Signal(syscall.SIGCONT)
}

func TestUnconditionalPutOfDeposedLeaderIsAnsweredByHigherVersion(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	leader := f.Start("-linger", "700ms")
	follower := f.Start("-lead", "never")
	f.converge("a leader of the predecessor", leader, follower)
	successor, other := f.StartDivvy("leave", nil), f.manage(processes.Never())
	f.converge("divvy's join", leader, follower, successor, other)
	written := len(leader.Said("published"))
	f.depose(leader, successor, follower, other)
	until(t, "the end of its leadership", func() bool { return leader.Last("silent") != nil })
	if leader.IsLeader() || len(leader.Said("published")) == written {
		t.Fatal("it wrote nothing after it was deposed")
	}
	highest := int64(0)
	for _, line := range leader.Said("published") {
		highest = max(highest, line.Version)
	}
	until(t, "the successor wrote the last assignment of each worker, with a higher version", func() bool {
		last := map[string]processes.Entry{}
		for _, entry := range f.Entries() {
			last[entry.Worker] = entry
		}
		for _, entry := range last {
			if !entry.IsDeleted && (entry.Term == 0 || entry.Version <= highest) {
				return false
			}
		}
		return true
	})
	f.converge("all of them", leader, follower, successor, other)
	if !successor.IsLeader() {
		t.Error("the successor does not lead any more")
	}
	f.Fleet.Verify()
}

func TestIDReclaimedWithoutConditionByPredecessorIsDetectedAndReported(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	leader := f.Start()
	f.converge("alone", leader)
	thief := f.Start("-lead", "never")
	f.converge("two", leader, thief)
	id := thief.ID()
	thief.Signal(syscall.SIGSTOP)
	until(t, "its id expires", func() bool { _, err := f.IDs.Get(id); return err != nil })
	f.converge("without it", leader)
	robbed := f.StartDivvy("leave", nil)
	f.converge("another process has its id", leader, robbed)
	if robbed.ID() != id {
		t.Fatalf("it has %s", robbed.ID())
	}
	thief.Signal(syscall.SIGCONT)
	f.isRobbed(robbed, id)
	f.converge("under ids of their own", leader, thief, robbed)
	f.verify()
}

func TestLeaderWithStolenIDStepsDownAndClaimsAnother(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	robbed := f.StartDivvy("leave", nil)
	f.converge("alone", robbed)
	other, follower := f.manage(processes.Never()), f.Start("-lead", "never")
	version := f.converge("three", robbed, other, follower)
	id := robbed.ID()
	thief := f.Start("-steal", id)
	f.isRobbed(robbed, id)
	until(t, "it steps down", func() bool { return !robbed.IsLeader() })
	// By its name, the lease belongs to the thief, which continues with it.
	until(t, "the thief leads", thief.IsLeader)
	after := f.converge("under ids of their own", robbed, other, follower, thief)
	if after <= version {
		t.Errorf("version %d after %d", after, version)
	}
	f.verify(id + " is claimed while another process has it")
}

func TestPredecessorLeaderFrozenBeyondItsLeasesResumesAsFollower(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	frozen := f.Start()
	f.converge("alone", frozen)
	successor := f.StartDivvy("leave", nil)
	f.converge("two", frozen, successor)
	id := frozen.ID()
	frozen.Signal(syscall.SIGSTOP)
	until(t, "its id expires", func() bool { _, err := f.IDs.Get(id); return err != nil })
	f.converge("without it", successor)
	robbed := f.StartDivvy("leave", processes.Never())
	version := f.converge("another process has its id", successor, robbed)
	if robbed.ID() != id || !successor.IsLeader() {
		t.Fatalf("it has %s; the other one leads: %v", robbed.ID(), successor.IsLeader())
	}
	frozen.Signal(syscall.SIGCONT)
	f.isRobbed(robbed, id)
	after := f.converge("under ids of their own", frozen, successor, robbed)
	if after <= version || !successor.IsLeader() {
		t.Errorf("version %d after %d; its successor leads: %v", after, version, successor.IsLeader())
	}
	// Without the ledger: the unconditional write of the frozen process, before it checked, has an
	// older version.
	f.Fleet.Verify()
}

// isRobbed waits until a divvy worker detects that another process has its id, at its next renewal
// at the latest, reports it by name, and has another id.
func (f *mixed) isRobbed(robbed *processes.Member, id string) {
	f.t.Helper()
	until(f.t, "the worker detects the stolen id", func() bool { return robbed.Last("lost") != nil })
	if lost := robbed.Last("lost"); lost.Worker != id {
		f.t.Errorf("lost %s, not %s", lost.Worker, id)
	}
	until(f.t, "another id", func() bool { return robbed.ID() != "" && robbed.ID() != id })
	if len(robbed.Said("lost")) != 1 {
		f.t.Errorf("lost %d times", len(robbed.Said("lost")))
	}
	hasID := false
	for _, line := range robbed.Said("") {
		switch {
		case line.Event == "claimed":
			hasID = true
		case line.Event == "lost":
			hasID = false
		case line.Event == "holds" && !hasID && len(line.Partitions) > 0:
			f.t.Errorf("without an id it holds %+v", line)
		}
	}
}

func TestUnconditionallyDeletedLeaseIsAcquiredByOneLeader(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	divvys := f.StartDivvy("leave", nil)
	f.converge("alone", divvys)
	others := f.Start()
	f.converge("two", divvys, others)
	for range 5 {
		stays := losesNothing(t, []*processes.Member{divvys, others})
		must(t, f.Election.Delete("leader")) // as a leaving leader of the predecessor does
		until(t, "a lease", func() bool { _, err := f.Election.Get("leader"); return err == nil })
		until(t, "one leader", func() bool { return divvys.IsLeader() != others.IsLeader() })
		f.converge("after the deletion", divvys, others)
		stays()
	}
	f.verify()
}

func TestBothKindsClaimLowestFreeIDAndReadEachOthersValues(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	members := []*processes.Member{f.StartDivvy("leave", nil), f.Start("-lead", "never"), f.manage(processes.Never()),
		f.Start("-lead", "never"), f.StartDivvy("leave", processes.Never())}
	for number, member := range members {
		if want := fmt.Sprintf("worker-%d", number); member.ID() != want {
			t.Errorf("%s is not %s", member.ID(), want)
		}
		claim, err := f.IDs.Get(member.ID())
		must(t, err)
		if _, err := time.Parse(time.RFC3339Nano, string(claim.Value())); err != nil {
			t.Errorf("the claim of %s: %v", member.ID(), err)
		}
	}
	f.converge("all", members...)
	lease, err := f.Election.Get("leader")
	must(t, err)
	if name, seconds, _ := strings.Cut(string(lease.Value()), ":"); name != "worker-0" || len(seconds) != 10 {
		t.Errorf("the lease says %q", lease.Value())
	}
	// The predecessor treats every key with the heartbeat prefix as a worker.
	keys, err := f.Heartbeats.Keys()
	must(t, err)
	slices.Sort(keys)
	if want := "heartbeat.worker-0 heartbeat.worker-1 heartbeat.worker-2 heartbeat.worker-3 heartbeat.worker-4"; strings.Join(keys, " ") != want {
		t.Errorf("heartbeats %q", keys)
	}
	// The next worker of either kind claims a free id.
	for _, start := range []func() *processes.Member{
		func() *processes.Member { return f.Start("-lead", "never") },
		func() *processes.Member { return f.StartDivvy("leave", processes.Never()) },
	} {
		members[2].End(syscall.SIGTERM)
		members[2] = start()
		if members[2].ID() != "worker-2" {
			t.Errorf("it has %s", members[2].ID())
		}
		f.converge("the gap is filled", members...)
	}
	f.verify()
}

func TestFleetWithCustomNamesIsIsolatedFromDefaultFleet(t *testing.T) {
	t.Parallel()
	url := servers.Start(t)
	usual := newMixed(t, url)
	named := mixedOf(t, processes.NewFleetNamed(t, url, "./cmd/predecessor",
		processes.Names{Buckets: "tools", Workers: "node"}))
	others := []*processes.Member{usual.StartDivvy("leave", nil), usual.Start()}
	predecessors := named.Start()
	divvys := named.StartDivvy("leave", nil)
	third := named.StartDivvy("leave", processes.Never())
	named.converge("three", predecessors, divvys, third)
	usual.converge("two", others...)
	if ids := predecessors.ID() + " " + divvys.ID() + " " + third.ID(); ids != "node-0 node-1 node-2" {
		t.Errorf("ids %s", ids)
	}
	predecessors.End(syscall.SIGTERM)
	until(t, "divvy's leads", divvys.IsLeader)
	named.converge("the leader left", divvys, third)
	usual.converge("still two", others...)
	named.verify()
	usual.verify()
}

// No id is claimed twice, and the next worker claims a free one.
func TestExhaustedSharedIDPoolIsReported(t *testing.T) {
	t.Parallel()
	f := newMixed(t, servers.Start(t))
	pool := map[string]string{"worker_id_max": "2"}
	leaves := f.Start("-ids", "3")
	divvys, stays := f.StartDivvy("leave", pool), f.Start("-ids", "3")
	f.converge("the pool is full", leaves, divvys, stays)

	store, fourth := f.manager(pool)
	defer func() { must(t, store.Close()) }()
	defer func() { must(t, fourth.Close()) }()
	reported, err := fourth.Subscribe()
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- fourth.Start(ctx) }()
	for event := range reported.C {
		if event.Kind == divvy.EventManagerFailed && errors.Is(event.Err, divvy.ErrIDsExhausted) {
			break
		}
	}
	cancel()
	if err := <-started; err == nil {
		t.Error("the fourth has an id")
	}
	reported.Cancel()

	leaves.End(syscall.SIGTERM)
	late := f.manage(pool)
	if late.ID() != "worker-0" {
		t.Errorf("it has %s", late.ID())
	}
	f.converge("the place is taken", divvys, stays, late)
	f.verify()
}
