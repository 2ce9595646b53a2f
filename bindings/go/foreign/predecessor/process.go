package predecessor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Line is a report of a process, as one JSON line.
type Line struct {
	// Event: "claimed" (an id), "leads", "follows" (no longer leads), "silent" (the leadership has
	// ended completely), "published" or "holds".
	Event  string `json:"event"`
	Worker string `json:"worker"`
	// Version and Lifecycle: of "published" and "holds".
	Version   int64  `json:"version,omitempty"`
	Lifecycle string `json:"lifecycle,omitempty"`
	// Partitions: the assignment of the worker from now on.
	Partitions []string `json:"partitions,omitempty"`
	// Workers: the workers of the published plan.
	Workers []string `json:"workers,omitempty"`
}

// assignment is the stored assignment of a worker.
type assignment struct {
	Version    int64       `json:"version"`
	Lifecycle  string      `json:"lifecycle"`
	Partitions []Partition `json:"partitions"`
}

// process is one worker that may lead.
type process struct {
	config                              Config
	report                              func(Line)
	ids, election, heartbeats, assigned nats.KeyValue
	worker                              string
}

// Run runs a whole process until the context ends: it claims an id, sends heartbeats, follows its
// assignment, and leads when elected. Reports come from several goroutines, one at a time.
func Run(ctx context.Context, config Config, report func(Line)) error {
	// Fail early if the strategy is unknown.
	if _, err := plan(config.Strategy, []string{"any"}, nil); err != nil {
		return err
	}
	client, err := nats.Connect(config.URL, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		return err
	}
	defer client.Close()
	var reporting sync.Mutex
	p := &process{config: config, report: func(line Line) {
		reporting.Lock()
		defer reporting.Unlock()
		report(line)
	}}
	if err := p.openBuckets(ctx, client); err != nil {
		return err
	}
	if err := p.claim(ctx); err != nil {
		return err
	}
	p.report(Line{Event: "claimed", Worker: p.worker})
	p.beat()
	var running sync.WaitGroup
	start := func(work func()) {
		running.Add(1)
		go func() {
			defer running.Done()
			work()
		}()
	}
	start(func() { every(ctx, config.HeartbeatInterval, p.beat) })
	start(func() { every(ctx, config.IDTTL/3, p.renewID) })
	start(func() { p.hold(ctx) })
	if config.Lead {
		start(func() { p.campaign(ctx) })
	}
	running.Wait()
	if config.Leave {
		_ = p.heartbeats.Delete(p.heartbeatKey())
		_ = p.ids.Delete(p.worker)
	}
	return nil
}

// openBuckets opens or creates the buckets. It waits for a server that is starting.
func (p *process) openBuckets(ctx context.Context, client *nats.Conn) error {
	jetStream, err := client.JetStream(nats.MaxWait(2 * time.Second))
	if err != nil {
		return err
	}
	buckets := []struct {
		at   *nats.KeyValue
		name string
		ttl  time.Duration
	}{
		{&p.ids, p.config.StableIDBucket, p.config.IDTTL},
		{&p.election, p.config.ElectionBucket, p.config.ElectionTTL},
		{&p.heartbeats, p.config.HeartbeatBucket, p.config.HeartbeatTTL},
		{&p.assigned, p.config.AssignmentBucket, 0},
	}
	for _, bucket := range buckets {
		for {
			*bucket.at, err = jetStream.KeyValue(bucket.name)
			if errors.Is(err, nats.ErrBucketNotFound) {
				*bucket.at, err = jetStream.CreateKeyValue(&nats.KeyValueConfig{Bucket: bucket.name, TTL: bucket.ttl})
			}
			if err == nil {
				break
			}
			if !pause(ctx, 100*time.Millisecond) {
				return fmt.Errorf("bucket %s: %w", bucket.name, err)
			}
		}
	}
	return nil
}

// claim claims the lowest free id. After a failed read, the predecessor puts unconditionally.
func (p *process) claim(ctx context.Context) error {
	if p.config.Steal != "" {
		p.worker = p.config.Steal
		_, err := p.ids.Put(p.worker, now())
		return err
	}
	for number := range p.config.IDs {
		id := fmt.Sprintf("%s-%d", p.config.Prefix, number)
		_, err := p.ids.Create(id, now())
		if err == nil {
			p.worker = id
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, nats.ErrKeyExists) {
			return fmt.Errorf("claim %s: %w", id, err)
		}
	}
	return fmt.Errorf("all %d ids are taken", p.config.IDs)
}

// renewID is unconditional: a process that was frozen while its id was claimed by another takes it
// back, and from then on both have it.
func (p *process) renewID() { _, _ = p.ids.Put(p.worker, now()) }

func (p *process) beat() { _, _ = p.heartbeats.Put(p.heartbeatKey(), now()) }

func (p *process) heartbeatKey() string { return "heartbeat." + p.worker }

// hold reports the assignment of the worker whenever it changes.
func (p *process) hold(ctx context.Context) {
	watch, err := p.assigned.Watch("assignment."+p.worker, nats.Context(ctx))
	for err != nil {
		if !pause(ctx, 100*time.Millisecond) {
			return
		}
		watch, err = p.assigned.Watch("assignment."+p.worker, nats.Context(ctx))
	}
	defer func() { _ = watch.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case entry := <-watch.Updates():
			// Deletions and malformed values are ignored; nil marks the end of the initial state.
			if entry == nil || entry.Operation() != nats.KeyValuePut {
				continue
			}
			var held assignment
			if json.Unmarshal(entry.Value(), &held) != nil {
				continue
			}
			line := Line{Event: "holds", Worker: p.worker, Version: held.Version, Lifecycle: held.Lifecycle}
			for _, partition := range held.Partitions {
				line.Partitions = append(line.Partitions, partition.ID())
			}
			p.report(line)
		}
	}
}

func now() []byte { return []byte(time.Now().Format(time.RFC3339Nano)) }

// workerOf returns the worker of a key such as heartbeat.worker-7, if it has the prefix.
func workerOf(prefix, key string) (string, bool) { return strings.CutPrefix(key, prefix+".") }

// every calls f immediately and then at each interval, until the context ends.
func every(ctx context.Context, interval time.Duration, call func()) {
	for call(); pause(ctx, interval); call() {
	}
}

// pause waits. It returns false if the context ended.
func pause(ctx context.Context, duration time.Duration) bool {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
