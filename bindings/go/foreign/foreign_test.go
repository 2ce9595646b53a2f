package foreign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
	"github.com/nats-io/nats.go"
)

const timeout = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// worker is a worker without divvy.
type worker struct {
	name  string
	stop  chan struct{}
	ended sync.WaitGroup

	mutex    sync.Mutex
	version  int64
	problems []string
	held     []string
}

type fleet struct {
	t          testing.TB
	heartbeats nats.KeyValue
	assigned   nats.KeyValue
}

func (f *fleet) join(name string) *worker {
	f.t.Helper()
	w := &worker{name: name, stop: make(chan struct{})}
	watch, err := f.assigned.Watch("assignment." + name)
	must(f.t, err)
	beat := func() {
		_, _ = f.heartbeats.PutString("heartbeat."+name, time.Now().Format(time.RFC3339Nano))
	}
	beat()
	w.ended.Add(1)
	go func() {
		defer w.ended.Done()
		defer func() { _ = watch.Stop() }()
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-ticker.C:
				beat()
			case entry := <-watch.Updates():
				if entry != nil {
					w.take(entry)
				}
			}
		}
	}()
	return w
}

func (w *worker) take(entry nats.KeyValueEntry) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if entry.Operation() != nats.KeyValuePut {
		w.held = nil
		return
	}
	var assignment struct {
		Version    int64  `json:"version"`
		Lifecycle  string `json:"lifecycle"`
		Partitions []struct {
			Keys   []string `json:"keys"`
			Weight int64    `json:"weight"`
		} `json:"partitions"`
	}
	if err := json.Unmarshal(entry.Value(), &assignment); err != nil || assignment.Lifecycle == "" {
		w.problems = append(w.problems, string(entry.Value()))
	}
	var held []string
	for _, partition := range assignment.Partitions {
		held = append(held, strings.Join(partition.Keys, "."))
	}
	// In per-key mode a new leader rewrites every key, with its version and content.
	isRewrite := assignment.Version == w.version && slices.Equal(held, w.held)
	if assignment.Version <= w.version && !isRewrite {
		w.problems = append(w.problems, fmt.Sprintf("version %d after %d", assignment.Version, w.version))
	}
	w.version, w.held = assignment.Version, held
}

func (w *worker) crash() {
	close(w.stop)
	w.ended.Wait()
}

func divided(count int, workers ...*worker) bool {
	seen := map[string]bool{}
	for _, worker := range workers {
		worker.mutex.Lock()
		held := worker.held
		worker.mutex.Unlock()
		if len(held) == 0 {
			return false
		}
		for _, id := range held {
			if seen[id] {
				return false
			}
			seen[id] = true
		}
	}
	return len(seen) == count
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for ctx := patient(t); !holds(); time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

type topics struct{}

func (topics) ListPartitions(context.Context) ([]divvy.Partition, error) {
	list := make([]divvy.Partition, 20)
	for index := range list {
		list[index] = divvy.Partition{Keys: []string{"topic", fmt.Sprint(index)}, Weight: int64(index)}
	}
	return list, nil
}

func setUp(t testing.TB) (*fleet, *divvy.Calculator) {
	t.Helper()
	url := servers.Start(t)
	var store *divvy.Store
	var err error
	until(t, "a connection", func() bool {
		store, err = divvy.ConnectNATS(patient(t), divvy.NATSOptions{URLs: []string{url}, Name: "leader"})
		return err == nil
	})
	t.Cleanup(func() { must(t, store.Close()) })
	client, err := nats.Connect(url)
	must(t, err)
	t.Cleanup(client.Close)
	jetStream, err := client.JetStream()
	must(t, err)
	// The buckets already exist, as in a running fleet.
	heartbeats, err := jetStream.CreateKeyValue(&nats.KeyValueConfig{Bucket: "parti-heartbeat", TTL: 2 * time.Second})
	must(t, err)
	assigned, err := jetStream.CreateKeyValue(&nats.KeyValueConfig{Bucket: "parti-assignment"})
	must(t, err)
	calculator, err := divvy.NewCalculator(&divvy.Config{
		Store: store, Source: topics{},
		HeartbeatTTL: 2 * time.Second, EmergencyGracePeriod: 300 * time.Millisecond, Cooldown: 200 * time.Millisecond,
		ColdStartWindow: 300 * time.Millisecond, PlannedScaleWindow: 300 * time.Millisecond,
		Settings: map[string]string{"leave_window": "50ms", "recovery_grace": "200ms"},
	})
	must(t, err)
	t.Cleanup(func() { must(t, calculator.Close()) })
	return &fleet{t: t, heartbeats: heartbeats, assigned: assigned}, calculator
}

func TestDivvyLeadsFleetOfForeignWorkers(t *testing.T) {
	fleet, calculator := setUp(t)
	first, second := fleet.join("w-1"), fleet.join("w-2")
	must(t, calculator.Start(patient(t)))
	until(t, "cold start", func() bool { return divided(20, first, second) })
	third := fleet.join("w-3")
	until(t, "planned scale", func() bool { return divided(20, first, second, third) })
	first.crash()
	must(t, fleet.heartbeats.Delete("heartbeat.w-1"))
	until(t, "leave", func() bool { return divided(20, second, third) })
	second.crash()
	until(t, "emergency", func() bool { return divided(20, third) })
	if _, err := fleet.assigned.Get("assignment.w-2"); !errors.Is(err, nats.ErrKeyNotFound) {
		t.Fatal("the assignment of a dead worker remains")
	}
	// A leader of the predecessor that has not noticed its deposition writes unconditionally.
	_, err := fleet.assigned.PutString("assignment.w-3", `{"version":1,"lifecycle":"emergency","partitions":[]}`)
	must(t, err)
	until(t, "the foreign write answered", func() bool { return divided(20, third) && calculator.CurrentVersion() > 4 })
	must(t, calculator.Stop(patient(t)))
	third.crash()
	for _, worker := range []*worker{first, second} {
		if len(worker.problems) > 0 {
			t.Errorf("%s: %v", worker.name, worker.problems)
		}
	}
}

// A host with its own signals and children, under load, while connections break.
func TestHostSignalsAndChildProcessesAreNotAffected(t *testing.T) {
	fleet, calculator := setUp(t)
	worker := fleet.join("w-1")
	defer worker.crash()
	must(t, calculator.Start(patient(t)))
	signals := make(chan os.Signal, 1_000)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGPIPE)
	defer signal.Stop(signals)
	end := time.Now().Add(time.Second)
	var busy sync.WaitGroup
	for range runtime.NumCPU() {
		busy.Add(1)
		go func() { // preempted by SIGURG
			defer busy.Done()
			for time.Now().Before(end) {
				runtime.Gosched()
			}
		}()
	}
	sent := 0
	for sent < 10 || time.Now().Before(end) {
		must(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		sent++
		must(t, exec.Command("true").Run())
		must(t, calculator.TriggerRebalance(patient(t)))
	}
	busy.Wait()
	until(t, "signals", func() bool { return len(signals) > 0 })
	for len(signals) > 0 {
		if <-signals == syscall.SIGPIPE {
			t.Fatal("SIGPIPE reached the host")
		}
	}
}
