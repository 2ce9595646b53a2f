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
	// Timeout is longer than any operation takes on a busy machine.
	Timeout = 60 * time.Second
	// Timing of a fleet.
	HeartbeatTTL      = 3 * time.Second
	HeartbeatInterval = 300 * time.Millisecond
	ElectionTTL       = 2 * time.Second
	IDTTL             = 6 * time.Second
	Window            = 500 * time.Millisecond
	// PartitionCount is the number of partitions of a fleet.
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
	for end := time.Now().Add(Timeout); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Partitions returns the partitions of a fleet.
func Partitions() []predecessor.Partition {
	list := make([]predecessor.Partition, PartitionCount)
	for number := range list {
		list[number] = predecessor.Partition{Keys: []string{"tool", fmt.Sprint(number)}, Weight: 1}
	}
	return list
}

// Fleet is a set of processes of the built command, on their own server.
type Fleet struct {
	URL                                 string
	IDs, Election, Heartbeats, Assigned nats.KeyValue

	t              testing.TB
	names          Names
	binary, folder string
	mutex          sync.Mutex
	members        []*Member
	violations     []string
}

// Names are the names that a fleet shares.
type Names struct {
	// Buckets is the prefix of all bucket names, Workers the prefix of all worker ids.
	Buckets, Workers string
}

// NewFleet starts a server and builds the command in the package directory command.
func NewFleet(t testing.TB, command string) *Fleet {
	t.Helper()
	return NewFleetOn(t, servers.Start(t), command)
}

// NewFleetOn is NewFleet on an existing server.
func NewFleetOn(t testing.TB, url, command string) *Fleet {
	t.Helper()
	return NewFleetNamed(t, url, command, Names{Buckets: "parti", Workers: "worker"})
}

// NewFleetNamed is NewFleet with other names.
func NewFleetNamed(t testing.TB, url, command string, names Names) *Fleet {
	t.Helper()
	folder := t.TempDir()
	f := &Fleet{t: t, URL: url, names: names, folder: folder, binary: filepath.Join(folder, "predecessor")}
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
		{&f.IDs, names.Buckets + "-stableid", IDTTL},
		{&f.Election, names.Buckets + "-election", ElectionTTL},
		{&f.Heartbeats, names.Buckets + "-heartbeat", HeartbeatTTL},
		{&f.Assigned, names.Buckets + "-assignment", 0},
	} {
		*bucket.at, err = jetStream.CreateKeyValue(&nats.KeyValueConfig{Bucket: bucket.name, TTL: bucket.ttl})
		Must(t, err)
	}
	return f
}

// Line is a report of a member: a [predecessor.Line], and the additional reports of divvy workers:
// events "without" (has no id), "lost" (another process has the id) and "failed".
type Line struct {
	predecessor.Line
	// Term of the assignment; 0: written by a leader without terms.
	Term int64
	// Detail: of "failed", why.
	Detail string
	// At: when it was read.
	At time.Time
}

// Member is one worker of the fleet, of either kind, and its reports.
type Member struct {
	// IsDivvys: it runs divvy, not the predecessor.
	IsDivvys bool

	fleet  *Fleet
	end    func(syscall.Signal)
	signal func(syscall.Signal)

	mutex    sync.Mutex
	lines    []Line
	isEnding bool
	isFrozen bool
}

// Start starts a process of the predecessor and waits until it has an id.
func (f *Fleet) Start(arguments ...string) *Member {
	f.t.Helper()
	arguments = append([]string{
		"-nats", f.URL, "-partitions", f.partitionsFile(),
		"-heartbeat-interval", HeartbeatInterval.String(), "-window", Window.String(),
		"-election-ttl", ElectionTTL.String(), "-id-ttl", IDTTL.String(),
		"-heartbeat-ttl", HeartbeatTTL.String(), "-prefix", f.names.Workers,
		"-stable-id-bucket", f.IDs.Bucket(), "-election-bucket", f.Election.Bucket(),
		"-heartbeat-bucket", f.Heartbeats.Bucket(), "-assignment-bucket", f.Assigned.Bucket(),
	}, arguments...)
	return f.run(exec.Command(f.binary, arguments...), func(text []byte, say func(Line)) {
		var line Line
		if json.Unmarshal(text, &line.Line) == nil {
			say(line)
		}
	})
}

func (f *Fleet) partitionsFile() string { return filepath.Join(f.folder, "partitions.json") }

// run starts a process, reads its output, and waits until it has an id.
func (f *Fleet) run(command *exec.Cmd, read func(text []byte, say func(Line))) *Member {
	f.t.Helper()
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := command.StdoutPipe()
	Must(f.t, err)
	Must(f.t, command.Start())
	ended := make(chan struct{})
	signal := func(signal syscall.Signal) { _ = command.Process.Signal(signal) }
	m := f.Join(signal, func(how syscall.Signal) {
		signal(how)
		<-ended
		_ = command.Wait()
	})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(output)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			read(lines.Bytes(), m.Say)
		}
	}()
	Until(f.t, "an id", func() bool { return m.ID() != "" })
	return m
}

// Join adds a member with a function that ends it. Its events are reported with Say.
func (f *Fleet) Join(signal, end func(syscall.Signal)) *Member {
	m := &Member{fleet: f, signal: signal, end: end}
	f.mutex.Lock()
	f.members = append(f.members, m)
	f.mutex.Unlock()
	f.t.Cleanup(func() { m.End(syscall.SIGKILL) })
	return m
}

// Say records a report of the member.
func (m *Member) Say(line Line) {
	m.fleet.mutex.Lock()
	defer m.fleet.mutex.Unlock()
	if line.Event == "claimed" {
		m.fleet.claimed(m, line.Worker)
	}
	line.At = time.Now()
	m.mutex.Lock()
	m.lines = append(m.lines, line)
	m.mutex.Unlock()
}

// claimed checks whether another running member has the id. A frozen one cannot renew it.
func (f *Fleet) claimed(by *Member, id string) {
	for _, other := range f.members {
		if other != by && other.isAtWork() && other.ID() == id {
			f.violations = append(f.violations, id+" is claimed while another process has it")
		}
	}
}

// Verify fails the test if two members had the same id at the same time, unless that was expected,
// or if a divvy worker went back to an earlier version.
func (f *Fleet) Verify(expected ...string) {
	f.t.Helper()
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if !slices.Equal(f.violations, expected) {
		f.t.Errorf("%q instead of %q", f.violations, expected)
	}
	for _, member := range f.members {
		last := int64(0)
		for _, line := range member.Said("") {
			switch {
			case !member.IsDivvys:
			case line.Event == "lost" || line.Event == "without":
				last = 0
			case line.Event == "holds" && line.Version != 0 && line.Version < last:
				f.t.Errorf("%s: version %d after %d", member.ID(), line.Version, last)
			case line.Event == "holds" && line.Version != 0:
				last = line.Version
			}
		}
	}
}

// Log logs all reports, for a failed test.
func (f *Fleet) Log() {
	f.t.Helper()
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for number, member := range f.members {
		for _, line := range member.Said("") {
			f.t.Log(line.At.Format("05.000"), "member", number, fmt.Sprintf("%+v", line.Line), line.Term, line.Detail)
		}
	}
}

// Last returns the last report of this event, or of any event; nil if there is none.
func (m *Member) Last(events ...string) *Line {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, line := range slices.Backward(m.lines) {
		if slices.Contains(events, line.Event) {
			return &line
		}
	}
	return nil
}

// Said returns all reports of this event, or of any event (""), oldest first.
func (m *Member) Said(event string) []Line {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	isOther := func(line Line) bool { return event != "" && line.Event != event }
	return slices.DeleteFunc(slices.Clone(m.lines), isOther)
}

// ID returns its stable id; empty if it has none.
func (m *Member) ID() string {
	if line := m.Last("claimed", "without"); line != nil {
		return line.Worker
	}
	return ""
}

// IsLeader reports whether it believes that it leads.
func (m *Member) IsLeader() bool {
	line := m.Last("leads", "follows")
	return line != nil && line.Event == "leads"
}

// Published returns the last version that it reported as published; 0: none. It reports after it
// has written all assignments, so a worker may report the version earlier.
func (m *Member) Published() int64 {
	if line := m.Last("published"); line != nil {
		return line.Version
	}
	return 0
}

// Held returns its assignment; nil before the first one.
func (m *Member) Held() []string {
	if line := m.Last("holds"); line != nil {
		return line.Partitions
	}
	return nil
}

// Signal freezes it (SIGSTOP) or resumes it (SIGCONT).
func (m *Member) Signal(signal syscall.Signal) {
	m.mutex.Lock()
	m.isFrozen = signal == syscall.SIGSTOP
	m.mutex.Unlock()
	m.signal(signal)
}

// End ends it, unless it has already ended: SIGTERM asks it to leave, SIGKILL acts like a power
// failure.
func (m *Member) End(how syscall.Signal) {
	m.mutex.Lock()
	hasEnded := m.isEnding
	m.isEnding = true
	m.mutex.Unlock()
	if !hasEnded {
		m.end(how)
	}
}

func (m *Member) isAtWork() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return !m.isEnding && !m.isFrozen
}

// Owned reports whether every partition has exactly one owner among these, by their own reports.
func Owned(members ...*Member) bool {
	seen := map[string]bool{}
	for _, member := range members {
		for _, partition := range member.Held() {
			if seen[partition] {
				return false
			}
			seen[partition] = true
		}
	}
	return len(seen) == PartitionCount
}

// Leader returns the leader; nil if none of them leads.
func Leader(members ...*Member) *Member {
	for _, member := range members {
		if member.IsLeader() {
			return member
		}
	}
	return nil
}

// Without returns all other members.
func Without(gone *Member, members ...*Member) []*Member {
	return slices.DeleteFunc(slices.Clone(members), func(member *Member) bool { return member == gone })
}
