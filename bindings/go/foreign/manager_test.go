package foreign

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
	"github.com/nats-io/nats.go"
)

// member is a manager with its own connection.
type member struct {
	*divvy.Manager
	t testing.TB
}

func newMember(t testing.TB, url string) *member {
	t.Helper()
	var store *divvy.Store
	var err error
	until(t, "a connection", func() bool {
		store, err = divvy.ConnectNATS(patient(t), divvy.NATSOptions{URLs: []string{url}, Name: "member"})
		return err == nil
	})
	manager, err := divvy.NewManager(&divvy.ManagerConfig{
		Config: divvy.Config{
			Store: store, Source: topics{},
			HeartbeatTTL: 2 * time.Second, EmergencyGracePeriod: 300 * time.Millisecond, Cooldown: 200 * time.Millisecond,
			ColdStartWindow: 300 * time.Millisecond, PlannedScaleWindow: 300 * time.Millisecond,
			Settings: map[string]string{"leave_window": "50ms", "recovery_grace": "200ms"},
		},
		HeartbeatInterval: 300 * time.Millisecond, WorkerIDTTL: 3 * time.Second, ElectionTimeout: time.Second,
	})
	must(t, err)
	t.Cleanup(func() {
		must(t, manager.Close())
		must(t, store.Close())
	})
	return &member{Manager: manager, t: t}
}

func (m *member) holds() []string {
	m.t.Helper()
	held, err := m.Assignment()
	must(m.t, err)
	var ids []string
	for _, partition := range held.Partitions {
		ids = append(ids, strings.Join(partition.Keys, "-"))
	}
	slices.Sort(ids)
	return ids
}

// shared reports whether each of these owns some partitions, and all of them this many; weights
// decide how many each.
func shared(count int, held ...int) bool {
	for _, held := range held {
		count -= held
		if held == 0 {
			return false
		}
	}
	return count == 0
}

func TestManagersShareFleetWithForeignWorkers(t *testing.T) {
	url := servers.Start(t)
	first, second := newMember(t, url), newMember(t, url)
	must(t, first.Start(patient(t)))
	until(t, "the first assignment", func() bool { return len(first.holds()) == 20 && first.IsLeader() })
	must(t, second.Start(patient(t)))
	until(t, "shared by two", func() bool { return shared(20, len(first.holds()), len(second.holds())) })

	client, err := nats.Connect(url)
	must(t, err)
	t.Cleanup(client.Close)
	jetStream, err := client.JetStream()
	must(t, err)
	heartbeats, err := jetStream.KeyValue("parti-heartbeat")
	must(t, err)
	assigned, err := jetStream.KeyValue("parti-assignment")
	must(t, err)
	other := (&fleet{t: t, heartbeats: heartbeats, assigned: assigned}).join("w-1")
	defer other.crash()
	until(t, "shared by three", func() bool {
		other.mutex.Lock()
		defer other.mutex.Unlock()
		return shared(20, len(other.held), len(first.holds()), len(second.holds()))
	})

	must(t, first.Stop(patient(t), divvy.Leave))
	until(t, "led by the other one", func() bool { return second.IsLeader() && second.Leader() == second.WorkerID() })
	until(t, "shared by two again", func() bool {
		other.mutex.Lock()
		defer other.mutex.Unlock()
		return shared(20, len(other.held), len(second.holds()))
	})
	if len(other.problems) > 0 {
		t.Error(other.problems)
	}
}

func TestMemberRestartedInTimeKeepsItsPartitions(t *testing.T) {
	url := servers.Start(t)
	first, second := newMember(t, url), newMember(t, url)
	must(t, first.Start(patient(t)))
	must(t, second.Start(patient(t)))
	until(t, "shared", func() bool { return shared(20, len(first.holds()), len(second.holds())) })
	id, before, others := second.WorkerID(), second.holds(), first.holds()
	must(t, second.Stop(patient(t), divvy.Restart))
	if len(second.holds()) != 0 {
		t.Fatal("holds something after the stop")
	}
	must(t, second.Start(patient(t)))
	until(t, "its partitions", func() bool { return slices.Equal(second.holds(), before) })
	if second.WorkerID() != id || !slices.Equal(first.holds(), others) {
		t.Fatalf("%s was %s; the other one holds %v", second.WorkerID(), id, first.holds())
	}
}

func TestRepeatedMemberLifecyclesLeaveNothingBehind(t *testing.T) {
	member := newMember(t, servers.Start(t))
	one := func() {
		states, cancel := member.SubscribeToStateChanges()
		must(t, member.Start(patient(t)))
		<-states
		cancel()
		must(t, member.Stop(patient(t), divvy.Leave))
	}
	usage := func() (int, int, int) {
		runtime.GC()
		threads, err := os.ReadDir("/proc/self/task")
		must(t, err)
		files, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return runtime.NumGoroutine(), len(threads), len(files)
	}
	for range 5 {
		one()
	}
	goroutines, threads, files := usage()
	for range 20 {
		one()
	}
	var now string
	until(t, "as before", func() bool {
		goroutinesNow, threadsNow, filesNow := usage()
		now = fmt.Sprint(goroutinesNow, threadsNow, filesNow)
		return goroutinesNow <= goroutines+2 && threadsNow <= threads+3 && filesNow <= files+2
	})
	t.Log(goroutines, threads, files, "then", now)
}
