package predecessor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// leaderKey is the key of the leader's lease: "<worker id>:<unix seconds>".
const leaderKey = "leader"

// campaign acquires the leadership whenever it is free, and keeps it.
func (p *process) campaign(ctx context.Context) {
	var leading sync.WaitGroup
	defer leading.Wait()
	var end context.CancelFunc
	every(ctx, p.config.ElectionTTL/3, func() {
		switch isLeader := p.hasLeadership(); {
		case isLeader && end == nil:
			var term context.Context
			term, end = context.WithCancel(ctx)
			p.report(Line{Event: "leads", Worker: p.worker})
			leading.Add(1)
			go func() {
				defer leading.Done()
				p.lead(ctx, term)
			}()
		case !isLeader && end != nil:
			end()
			end = nil
			p.report(Line{Event: "follows", Worker: p.worker})
		}
	})
	if end == nil {
		return
	}
	end()
	if p.config.Leave {
		_ = p.election.Delete(leaderKey) // even if another process holds it by now
	}
}

// hasLeadership creates the lease, or renews its own.
func (p *process) hasLeadership() bool {
	value := []byte(fmt.Sprintf("%s:%d", p.worker, time.Now().Unix()))
	_, err := p.election.Create(leaderKey, value)
	if err == nil {
		return true
	}
	entry, err := p.election.Get(leaderKey)
	if err != nil || !strings.HasPrefix(string(entry.Value()), p.worker+":") {
		return false
	}
	// Another process may acquire the lease between the read and the put, and then loses it.
	_, err = p.election.Put(leaderKey, value)
	return err == nil
}

// lead publishes plans until the term ends; with Linger, one more after that. The version is read once:
// another leader during a pause of this process is not detected.
func (p *process) lead(ctx, term context.Context) {
	version := p.highestVersion()
	var planned []string
	changed := time.Time{}
	lifecycle := "cold_start"
	look := max(p.config.HeartbeatInterval/4, 10*time.Millisecond)
	every(term, look, func() {
		workers, err := p.living()
		if err != nil || len(workers) == 0 || slices.Equal(workers, planned) {
			changed = time.Time{}
			return
		}
		isLoss := slices.ContainsFunc(planned, func(worker string) bool { return !slices.Contains(workers, worker) })
		if changed.IsZero() {
			changed = time.Now()
		}
		if !isLoss && time.Since(changed) < p.config.Window {
			return
		}
		switch {
		case isLoss:
			lifecycle = "emergency"
		case planned != nil:
			lifecycle = "planned_scale"
		}
		version++
		p.publish(version, lifecycle, workers)
		planned, changed = workers, time.Time{}
	})
	if p.config.Linger > 0 && planned != nil && pause(ctx, p.config.Linger) {
		p.publish(version+1, lifecycle, planned)
	}
	p.report(Line{Event: "silent", Worker: p.worker})
}

// highestVersion returns the highest version of all assignments; a malformed one counts as none.
func (p *process) highestVersion() int64 {
	highest := int64(0)
	for _, key := range p.assignmentKeys() {
		entry, err := p.assigned.Get(key)
		var held assignment
		if err == nil && json.Unmarshal(entry.Value(), &held) == nil {
			highest = max(highest, held.Version)
		}
	}
	return highest
}

func (p *process) assignmentKeys() []string {
	keys, _ := p.assigned.Keys()
	isOther := func(key string) bool {
		_, isAssignment := workerOf("assignment", key)
		return !isAssignment
	}
	return slices.DeleteFunc(keys, isOther)
}

// living lists the workers with a heartbeat, sorted.
func (p *process) living() ([]string, error) {
	keys, err := p.heartbeats.Keys()
	if err != nil && !errors.Is(err, nats.ErrNoKeysFound) {
		return nil, err
	}
	var workers []string
	for _, key := range keys {
		if worker, isHeartbeat := workerOf("heartbeat", key); isHeartbeat {
			workers = append(workers, worker)
		}
	}
	slices.Sort(workers)
	return workers, nil
}

// publish writes the assignment of every worker with unconditional puts, one after the other, then
// deletes those of removed workers.
func (p *process) publish(version int64, lifecycle string, workers []string) {
	division, err := plan(p.config.Strategy, workers, p.config.Partitions)
	if err != nil {
		return // the strategy was checked at the start, and there are workers
	}
	for _, worker := range workers {
		value, err := json.Marshal(assignment{version, lifecycle, division[worker]})
		if err == nil {
			_, _ = p.assigned.Put("assignment."+worker, value)
		}
	}
	for _, key := range p.assignmentKeys() {
		if worker, _ := workerOf("assignment", key); !slices.Contains(workers, worker) {
			_ = p.assigned.Delete(key)
		}
	}
	p.report(Line{Event: "published", Worker: p.worker, Version: version, Lifecycle: lifecycle, Workers: workers})
}
