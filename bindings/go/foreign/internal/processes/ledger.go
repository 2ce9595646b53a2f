package processes

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/divvy-rs/divvy/bindings/go/foreign/predecessor"
	"github.com/nats-io/nats.go"
)

// Ledger records every assignment that was ever written to the bucket of a fleet, as observed by a
// plain watch.
type Ledger struct {
	t testing.TB

	mutex   sync.Mutex
	entries []Entry
}

// Entry is one write of the assignment of one worker.
type Entry struct {
	Worker               string
	Revision             uint64
	Version, Term        int64
	Lifecycle            string
	Partitions           []predecessor.Partition
	Written              time.Time
	IsDeleted, IsGarbage bool
}

// Watch starts a ledger.
func (f *Fleet) Watch() *Ledger {
	f.t.Helper()
	watch, err := f.Assigned.Watch("assignment.>")
	Must(f.t, err)
	l := &Ledger{t: f.t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for update := range watch.Updates() {
			if update != nil {
				l.take(update)
			}
		}
	}()
	f.t.Cleanup(func() {
		_ = watch.Stop()
		<-done
	})
	return l
}

func (l *Ledger) take(update nats.KeyValueEntry) {
	worker := strings.TrimPrefix(update.Key(), "assignment.")
	entry := Entry{
		Worker: worker, Revision: update.Revision(), Written: update.Created(),
		IsDeleted: update.Operation() != nats.KeyValuePut,
	}
	if !entry.IsDeleted {
		entry.IsGarbage = json.Unmarshal(update.Value(), &entry) != nil
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.entries = append(l.entries, entry)
}

// Entries returns all entries, in the order of the stream.
func (l *Ledger) Entries() []Entry {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return append([]Entry(nil), l.entries...)
}

// Highest returns the highest version ever written.
func (l *Ledger) Highest() int64 {
	highest := int64(0)
	for _, entry := range l.Entries() {
		highest = max(highest, entry.Version)
	}
	return highest
}

// Verify fails the test if a version or a term decreased, across all writers and deleted keys. Only
// a new divvy leader may rewrite a key unchanged, under its own term (on servers without atomic
// batches).
func (l *Ledger) Verify() {
	l.t.Helper()
	var highest Entry
	last := map[string]Entry{}
	for _, entry := range l.Entries() {
		if entry.IsDeleted {
			delete(last, entry.Worker)
			continue
		}
		before := last[entry.Worker]
		isRewrite := entry.Version == before.Version && entry.Lifecycle == before.Lifecycle && entry.Term > before.Term
		switch {
		case entry.IsGarbage:
			l.t.Errorf("revision %d of %s is not an assignment", entry.Revision, entry.Worker)
		case entry.Version < highest.Version && !isRewrite:
			l.t.Errorf("revision %d of %s: version %d after %d", entry.Revision, entry.Worker, entry.Version, highest.Version)
		case entry.Term != 0 && entry.Term < highest.Term:
			l.t.Errorf("revision %d of %s: term %d after %d", entry.Revision, entry.Worker, entry.Term, highest.Term)
		}
		highest.Version, highest.Term = max(highest.Version, entry.Version), max(highest.Term, entry.Term)
		last[entry.Worker] = entry
	}
}

// Log logs the writes, for a failed test.
func (l *Ledger) Log() {
	l.t.Helper()
	for _, entry := range l.Entries() {
		what := fmt.Sprintf("version %d, term %d, %s:", entry.Version, entry.Term, entry.Lifecycle)
		if entry.IsDeleted {
			what = "deleted"
		}
		var held []string
		for _, partition := range entry.Partitions {
			held = append(held, strings.TrimPrefix(partition.ID(), "tool."))
		}
		l.t.Log(entry.Written.Format("05.000"), entry.Revision, entry.Worker, what, strings.Join(held, " "))
	}
}
