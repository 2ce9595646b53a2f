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
	// Timing of a fleet.
	HeartbeatTTL      = 3 * time.Second
	HeartbeatInterval = 300 * time.Millisecond
	ElectionTTL       = 2 * time.Second
	IDTTL             = 6 * time.Second
	Window            = 500 * time.Millisecond
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
	names          Names
	binary, folder string
	mutex          sync.Mutex
	members        []*Member
	violations     []string
}

// Names of what a fleet shares.
type Names struct {
	// Buckets is what the names of all buckets begin with, Workers what all worker ids do.
	Buckets, Workers string
}

// NewFleet starts a server and builds the command. command is where its package is.
func NewFleet(t testing.TB, command string) *Fleet {
	t.Helper()
	return NewFleetOn(t, servers.Start(t), command)
}

// NewFleetOn is the same on a server that is there already.
func NewFleetOn(t testing.TB, url, command string) *Fleet {
	t.Helper()
	return NewFleetNamed(t, url, command, Names{Buckets: "parti", Workers: "worker"})
}

// NewFleetNamed is the same under other names.
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

// Line is what a member reports: what [predecessor.Line] tells, in the same words, and what only
// divvy's have: events "without" (no id any more), "lost" (the id is somebody else's) and "failed".
type Line struct {
	predecessor.Line
	// Term of what is held; 0: a leader without terms wrote it.
	Term int64
	// Detail: of "failed", why.
	Detail string
	// At: when it was read.
	At time.Time
}

// Member is one worker of the fleet, of whatever kind, and what it has said.
type Member struct {
	// IsDivvys: it is not the predecessor's.
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

// run starts a process, reads its lines, and waits until it has an id.
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

// Join makes a member of anything that is told how to end, and says what happens to it by Say.
func (f *Fleet) Join(signal, end func(syscall.Signal)) *Member {
	m := &Member{fleet: f, signal: signal, end: end}
	f.mutex.Lock()
	f.members = append(f.members, m)
	f.mutex.Unlock()
	f.t.Cleanup(func() { m.End(syscall.SIGKILL) })
	return m
}

// Say takes note of a line of the member.
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

// claimed looks whether the id is anybody else's who is not frozen: that one cannot renew it.
func (f *Fleet) claimed(by *Member, id string) {
	for _, other := range f.members {
		if other != by && other.isAtWork() && other.ID() == id {
			f.violations = append(f.violations, id+" is claimed while somebody has it")
		}
	}
}

// Verify fails the test when two members had one id at the same time, unless that was expected, or one
// of divvy's went back to an earlier version.
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

// Log logs what everybody said, for a test that has failed.
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

// Last is the last line of such an event, or of any of them; nil when there was none.
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

// Said is all that it has said of such an event, or of any (""), oldest first.
func (m *Member) Said(event string) []Line {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	isOther := func(line Line) bool { return event != "" && line.Event != event }
	return slices.DeleteFunc(slices.Clone(m.lines), isOther)
}

// ID is its stable id; empty when it has none.
func (m *Member) ID() string {
	if line := m.Last("claimed", "without"); line != nil {
		return line.Worker
	}
	return ""
}

// IsLeader is whether it believes that it leads.
func (m *Member) IsLeader() bool {
	line := m.Last("leads", "follows")
	return line != nil && line.Event == "leads"
}

// Published is the last version that it says it has published; 0: none. It says so when every worker
// has been told, some of which may have said it before.
func (m *Member) Published() int64 {
	if line := m.Last("published"); line != nil {
		return line.Version
	}
	return 0
}

// Held is what it holds; nil before the first assignment.
func (m *Member) Held() []string {
	if line := m.Last("holds"); line != nil {
		return line.Partitions
	}
	return nil
}

// Signal freezes it (SIGSTOP) or lets it go on (SIGCONT).
func (m *Member) Signal(signal syscall.Signal) {
	m.mutex.Lock()
	m.isFrozen = signal == syscall.SIGSTOP
	m.mutex.Unlock()
	m.signal(signal)
}

// End ends it, unless it has ended already: SIGTERM asks it to go, SIGKILL is a power cut.
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

// Owned is whether every partition has one owner among these, by what they say themselves.
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

// Leader is the one that leads; nil: none of them.
func Leader(members ...*Member) *Member {
	for _, member := range members {
		if member.IsLeader() {
			return member
		}
	}
	return nil
}

// Without is all the others.
func Without(gone *Member, members ...*Member) []*Member {
	return slices.DeleteFunc(slices.Clone(members), func(member *Member) bool { return member == gone })
}
