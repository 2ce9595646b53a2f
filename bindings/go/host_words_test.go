//go:build cgo

package divvy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a logger that keeps its records.
type lines struct {
	mutex sync.Mutex
	kept  []string
}

func (l *lines) keep(message string, fields ...any) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.kept = append(l.kept, fmt.Sprintf("%s %#v", message, fields))
}
func (l *lines) Debug(message string, fields ...any) { l.keep(message, fields...) }
func (l *lines) Info(message string, fields ...any)  { l.keep(message, fields...) }
func (l *lines) Warn(message string, fields ...any)  { l.keep(message, fields...) }
func (l *lines) Error(message string, fields ...any) { l.keep(message, fields...) }

// have reports whether one record contains all of the texts.
func (l *lines) have(texts ...string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, line := range l.kept {
		found := 0
		for _, text := range texts {
			if strings.Contains(line, text) {
				found++
			}
		}
		if found == len(texts) {
			return true
		}
	}
	return false
}

func logged(t *testing.T) *lines {
	t.Helper()
	kept := &lines{}
	must(t, SetLogger(kept))
	t.Cleanup(func() { must(t, SetLogger(nil)) })
	return kept
}

func TestSourceErrorTextReachesLogEventStatusAndWaitingCall(t *testing.T) {
	log := logged(t)
	store := memory(t)
	newFleet(t, store, "w-1")
	source := &listSource{list: tools(3)}
	config := config(store)
	config.Source = source
	calculator := calculator(t, config)
	must(t, calculator.Start(patient(t)))
	until(t, "first plan", func() bool { return calculator.CurrentVersion() > 0 })
	subscription, err := calculator.Subscribe()
	must(t, err)
	defer subscription.Cancel()
	source.mutex.Lock()
	source.err = errors.New("db-7 is down")
	source.mutex.Unlock()
	if err := calculator.Refresh(patient(t)); err == nil || strings.Count(err.Error(), "db-7 is down") != 1 {
		t.Fatal(err)
	}
	if !statusMentions(t, calculator, "db-7 is down") {
		t.Fatal("not in the status")
	}
	until(t, "event", func() bool {
		select {
		case event := <-subscription.C:
			return event.Err != nil && strings.Contains(event.Err.Error(), "db-7 is down")
		case <-time.After(testTimeout):
			return false
		}
	})
	until(t, "log", func() bool { return log.have("db-7 is down", `"code", "source_failed"`, `"attempts", 1`) })
}

func statusMentions(t *testing.T, calculator *Calculator, text string) bool {
	t.Helper()
	status, err := calculator.Status()
	must(t, err)
	return strings.Contains(string(status), text)
}

func TestStrategyPanicValueReachesStatusAndLog(t *testing.T) {
	log := logged(t)
	store := memory(t)
	newFleet(t, store, "w-1")
	config := config(store)
	config.Strategy = strategyFunc(func([]string, []Partition) (map[string][]Partition, error) {
		panic("nil map 42")
	})
	calculator := calculator(t, config)
	must(t, calculator.Start(patient(t)))
	until(t, "status", func() bool { return statusMentions(t, calculator, "the strategy panicked: nil map 42") })
	until(t, "log", func() bool { return log.have("the strategy panicked: nil map 42") })
}

type lostBallot struct{}

func (lostBallot) Campaign(context.Context, string) (time.Duration, error) {
	return 0, errors.New("zookeeper session expired")
}
func (lostBallot) Resign(context.Context, string) error { return nil }

func TestElectionErrorTextReachesLogEventAndStatus(t *testing.T) {
	log := logged(t)
	config := managerConfig(memory(t))
	config.Election = lostBallot{}
	manager := manager(t, config)
	subscription, err := manager.Subscribe()
	must(t, err)
	defer subscription.Cancel()
	short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = manager.Start(short) // there is no leader, hence no assignment
	for event := range subscription.C {
		if event.Err != nil && strings.Contains(event.Err.Error(), "zookeeper session expired") {
			break
		}
	}
	until(t, "log", func() bool { return log.have("zookeeper session expired") })
}

func TestPanicOfAssignmentHookIsLogged(t *testing.T) {
	log := logged(t)
	config := managerConfig(memory(t))
	config.OnAssignment = func(AssignmentChange) { panic("cache is gone") }
	manager := manager(t, config)
	must(t, manager.Start(patient(t)))
	until(t, "log", func() bool { return log.have("event callback failed: the assignment hook panicked: cache is gone") })
}

func TestLogFieldsReachLoggerWithTheirTypes(t *testing.T) {
	log := logged(t)
	store := memory(t)
	fleet := newFleet(t, store, "w-1")
	calculator := calculator(t, config(store))
	must(t, calculator.Start(patient(t)))
	until(t, "plan", func() bool { return log.have("rebalance completed", `"workers", 1`, `"partitions", 12`) })
	fleet.join("w-2")
	until(t, "join", func() bool { return log.have("worker joined", `"worker", "w-2"`) })
}
