package predecessor_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
	"github.com/divvy-rs/divvy/bindings/go/foreign/predecessor"
	"github.com/nats-io/nats.go"
)

const (
	patience       = 60 * time.Second
	partitionCount = 24
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// fleet is processes of the built command on a server of their own.
type fleet struct {
	t                   *testing.T
	url, binary, folder string
	assigned, election  nats.KeyValue
	ids, heartbeats     nats.KeyValue
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	folder := t.TempDir()
	f := &fleet{t: t, url: servers.Start(t), folder: folder, binary: filepath.Join(folder, "predecessor")}
	build := exec.Command("go", "build", "-o", f.binary, "../cmd/predecessor")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var partitions []predecessor.Partition
	for number := range partitionCount {
		partitions = append(partitions, predecessor.Partition{Keys: []string{"tool", fmt.Sprint(number)}, Weight: 1})
	}
	text, err := json.Marshal(partitions)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "partitions.json"), text, 0o600))
	client, err := nats.Connect(f.url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	must(t, err)
	t.Cleanup(client.Close)
	until(t, "a server", client.IsConnected)
	jetStream, err := client.JetStream()
	must(t, err)
	for _, bucket := range []struct {
		at   *nats.KeyValue
		name string
		ttl  time.Duration
	}{
		{&f.ids, "parti-stableid", 6 * time.Second},
		{&f.election, "parti-election", 2 * time.Second},
		{&f.heartbeats, "parti-heartbeat", 3 * time.Second},
		{&f.assigned, "parti-assignment", 0},
	} {
		*bucket.at, err = jetStream.CreateKeyValue(&nats.KeyValueConfig{Bucket: bucket.name, TTL: bucket.ttl})
		must(t, err)
	}
	return f
}

// member is one process and what it has said.
type member struct {
	command *exec.Cmd
	ended   chan struct{}
	mutex   sync.Mutex
	lines   []predecessor.Line
}

func (f *fleet) start(arguments ...string) *member {
	f.t.Helper()
	arguments = append([]string{
		"-nats", f.url, "-partitions", filepath.Join(f.folder, "partitions.json"),
		"-heartbeat-interval", "300ms", "-window", "500ms", "-election-ttl", "2s", "-id-ttl", "6s", "-heartbeat-ttl", "3s",
	}, arguments...)
	m := &member{command: exec.Command(f.binary, arguments...), ended: make(chan struct{})}
	m.command.Stderr = os.Stderr
	m.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := m.command.StdoutPipe()
	must(f.t, err)
	must(f.t, m.command.Start())
	f.t.Cleanup(func() { m.end(syscall.SIGKILL) })
	go func() {
		defer close(m.ended)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var line predecessor.Line
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				m.mutex.Lock()
				m.lines = append(m.lines, line)
				m.mutex.Unlock()
			}
		}
	}()
	until(f.t, "an id", func() bool { return m.last("claimed") != nil })
	return m
}

func (m *member) last(event string) *predecessor.Line {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, line := range slices.Backward(m.lines) {
		if line.Event == event {
			return &line
		}
	}
	return nil
}

func (m *member) id() string { return m.last("claimed").Worker }

// end ends the process, unless it has ended already.
func (m *member) end(signal syscall.Signal) {
	_ = m.command.Process.Signal(signal)
	<-m.ended
	_ = m.command.Wait()
}

// owned is whether every partition has one owner among these, by what they say themselves.
func owned(members ...*member) bool {
	seen := map[string]bool{}
	for _, member := range members {
		held := member.last("holds")
		if held == nil {
			return false
		}
		for _, partition := range held.Partitions {
			if seen[partition] {
				return false
			}
			seen[partition] = true
		}
	}
	return len(seen) == partitionCount
}

func leader(members ...*member) *member {
	for _, member := range members {
		if member.last("leads") != nil && member.last("follows") == nil {
			return member
		}
	}
	return nil
}

func without(gone *member, members ...*member) []*member {
	return slices.DeleteFunc(members, func(member *member) bool { return member == gone })
}

func TestAFleetAloneDividesItsPartitionsAndSurvivesItsLeader(t *testing.T) {
	f := newFleet(t)
	members := []*member{f.start(), f.start(), f.start()}
	ids := []string{members[0].id(), members[1].id(), members[2].id()}
	if !slices.Equal(ids, []string{"worker-0", "worker-1", "worker-2"}) {
		t.Fatalf("ids %q", ids)
	}
	until(t, "all partitions owned", func() bool { return owned(members...) })
	first := leader(members...)
	entry, err := f.election.Get("leader")
	must(t, err)
	if name, seconds, _ := strings.Cut(string(entry.Value()), ":"); name != first.id() || len(seconds) != 10 {
		t.Fatalf("the lease says %q", entry.Value())
	}
	before := first.last("published").Version
	first.end(syscall.SIGKILL)
	rest := without(first, members...)
	until(t, "another leader", func() bool { return leader(rest...) != nil })
	until(t, "all partitions owned without the first leader", func() bool { return owned(rest...) })
	if after := leader(rest...).last("published").Version; after <= before {
		t.Fatalf("version %d after %d", after, before)
	}
	if _, err := f.assigned.Get("assignment." + first.id()); err == nil {
		t.Fatal("the lost worker still has an assignment")
	}
}

func TestAProcessThatIsAskedToEndTakesItsLeave(t *testing.T) {
	f := newFleet(t)
	first := f.start()
	until(t, "a leader", func() bool { return owned(first) })
	second := f.start("-lead", "never")
	until(t, "both hold some", func() bool { return owned(first, second) })
	second.end(syscall.SIGTERM)
	for what, bucket := range map[string]nats.KeyValue{"heartbeat.worker-1": f.heartbeats, "worker-1": f.ids} {
		if _, err := bucket.Get(what); err == nil {
			t.Errorf("%s is still there", what)
		}
	}
	until(t, "the rest holds all", func() bool { return owned(first) })
	first.end(syscall.SIGTERM)
	if _, err := f.election.Get("leader"); err == nil {
		t.Error("the lease is still there")
	}
}

func TestOneThatNeverLeadsLeavesTheLeadershipFree(t *testing.T) {
	f := newFleet(t)
	follower := f.start("-lead", "never")
	leading := f.start()
	until(t, "all partitions owned", func() bool { return owned(follower, leading) })
	if follower.last("leads") != nil || leader(follower, leading) != leading {
		t.Fatal("the wrong one leads")
	}
}

// The faults that divvy has to live with in a mixed fleet.
func TestItWritesWithoutTermsAndGoesOnForAWhileAfterItLostTheLeadership(t *testing.T) {
	f := newFleet(t)
	_, err := f.assigned.PutString("assignment.worker-9", `{"version":41,"term":7,"lifecycle":"restart","partitions":[]}`)
	must(t, err)
	_, err = f.assigned.PutString("divvy.fence", `{"term":7,"leader":"other"}`)
	must(t, err)
	first := f.start("-linger", "1s")
	until(t, "all partitions owned", func() bool { return owned(first) })
	entry, err := f.assigned.Get("assignment.worker-0")
	must(t, err)
	if value := string(entry.Value()); !strings.HasPrefix(value, `{"version":42,"lifecycle":"cold_start","partitions":[{"keys":["tool",`) ||
		strings.Contains(value, "term") {
		t.Fatalf("it wrote %s", value)
	}
	fence, err := f.assigned.Get("divvy.fence")
	must(t, err)
	if string(fence.Value()) != `{"term":7,"leader":"other"}` {
		t.Fatalf("it touched the fence: %s", fence.Value())
	}
	// Its renewal is a look and a put: it may go over the rival's lease once, but not for ever.
	until(t, "it follows", func() bool {
		_, _ = f.election.PutString("leader", "worker-5:1700000000")
		return first.last("follows") != nil
	})
	until(t, "a last publication", func() bool { return first.last("published").Version == 43 })
}
