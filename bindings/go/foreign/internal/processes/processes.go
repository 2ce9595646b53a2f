// Package processes runs fleets of the predecessor's processes for tests.
package processes

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
	"github.com/divvy-rs/divvy/bindings/go/foreign/predecessor"
	"github.com/nats-io/nats.go"
)

const (
	// Patience is longer than anything takes on a busy machine.
	Patience = 60 * time.Second
	// HeartbeatTTL of a fleet.
	HeartbeatTTL = 3 * time.Second
	// PartitionCount is how many a fleet divides.
	PartitionCount = 24
)

// Must fails the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Until waits for a condition.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Partitions are those that a fleet divides.
func Partitions() []predecessor.Partition {
	list := make([]predecessor.Partition, PartitionCount)
	for number := range list {
		list[number] = predecessor.Partition{Keys: []string{"tool", fmt.Sprint(number)}, Weight: 1}
	}
	return list
}

// Fleet is processes of the built command, on a server of their own.
type Fleet struct {
	URL                                 string
	IDs, Election, Heartbeats, Assigned nats.KeyValue

	t              testing.TB
	binary, folder string
}

// NewFleet starts a server and builds the command. command is where its package is.
func NewFleet(t testing.TB, command string) *Fleet {
	t.Helper()
	folder := t.TempDir()
	f := &Fleet{t: t, URL: servers.Start(t), folder: folder, binary: filepath.Join(folder, "predecessor")}
	if output, err := exec.Command("go", "build", "-o", f.binary, command).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	text, err := json.Marshal(Partitions())
	Must(t, err)
	Must(t, os.WriteFile(filepath.Join(folder, "partitions.json"), text, 0o600))
	client, err := nats.Connect(f.URL, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	Must(t, err)
	t.Cleanup(client.Close)
	Until(t, "a server", client.IsConnected)
	jetStream, err := client.JetStream()
	Must(t, err)
	for _, bucket := range []struct {
		at   *nats.KeyValue
		name string
		ttl  time.Duration
	}{
		{&f.IDs, "parti-stableid", 6 * time.Second},
		{&f.Election, "parti-election", 2 * time.Second},
		{&f.Heartbeats, "parti-heartbeat", HeartbeatTTL},
		{&f.Assigned, "parti-assignment", 0},
	} {
		*bucket.at, err = jetStream.CreateKeyValue(&nats.KeyValueConfig{Bucket: bucket.name, TTL: bucket.ttl})
		Must(t, err)
	}
	return f
}

// Member is one process and what it has said.
type Member struct {
	command *exec.Cmd
	ended   chan struct{}
	mutex   sync.Mutex
	lines   []predecessor.Line
}

// Start starts a process and waits until it has an id.
func (f *Fleet) Start(arguments ...string) *Member {
	f.t.Helper()
	arguments = append([]string{
		"-nats", f.URL, "-partitions", filepath.Join(f.folder, "partitions.json"),
		"-heartbeat-interval", "300ms", "-window", "500ms", "-election-ttl", "2s", "-id-ttl", "6s",
		"-heartbeat-ttl", HeartbeatTTL.String(),
	}, arguments...)
	m := &Member{command: exec.Command(f.binary, arguments...), ended: make(chan struct{})}
	m.command.Stderr = os.Stderr
	m.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := m.command.StdoutPipe()
	Must(f.t, err)
	Must(f.t, m.command.Start())
	f.t.Cleanup(func() { m.End(syscall.SIGKILL) })
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
	Until(f.t, "an id", func() bool { return m.Last("claimed") != nil })
	return m
}

// Last is the last line of such an event; nil when there was none.
func (m *Member) Last(event string) *predecessor.Line {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, line := range slices.Backward(m.lines) {
		if line.Event == event {
			return &line
		}
	}
	return nil
}

// ID is its stable id.
func (m *Member) ID() string { return m.Last("claimed").Worker }

// End ends the process, unless it has ended already.
func (m *Member) End(signal syscall.Signal) {
	_ = m.command.Process.Signal(signal)
	<-m.ended
	_ = m.command.Wait()
}

// Owned is whether every partition has one owner among these, by what they say themselves.
func Owned(members ...*Member) bool {
	seen := map[string]bool{}
	for _, member := range members {
		held := member.Last("holds")
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
	return len(seen) == PartitionCount
}

// Leader is the one that leads; nil: none of them.
func Leader(members ...*Member) *Member {
	for _, member := range members {
		if member.Last("leads") != nil && member.Last("follows") == nil {
			return member
		}
	}
	return nil
}

// Without is all the others.
func Without(gone *Member, members ...*Member) []*Member {
	return slices.DeleteFunc(slices.Clone(members), func(member *Member) bool { return member == gone })
}
