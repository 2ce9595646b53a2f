//go:build cgo && linux

package divvy

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func started(b *testing.B, config *Config) *Calculator {
	config.HeartbeatTTL = time.Hour
	must(b, config.Store.Ensure(patient(b), BucketHeartbeat, 0))
	must(b, config.Store.Put(patient(b), BucketHeartbeat, "heartbeat.w-1", []byte("up")))
	calculator := calculator(b, config)
	must(b, calculator.Start(patient(b)))
	must(b, calculator.TriggerRebalance(patient(b)))
	return calculator
}

func BenchmarkGetState(b *testing.B) {
	calculator := started(b, config(memory(b)))
	for range b.N {
		_ = calculator.GetState()
	}
}

// The time from a transition to its arrival on the channel. A rebalance has two transitions.
func BenchmarkTransitionToChannel(b *testing.B) {
	calculator := started(b, config(memory(b)))
	subscription, err := calculator.Subscribe()
	must(b, err)
	go func() {
		// A single context: the contexts of a test are kept until its end, and the garbage collector
		// scans them.
		for range b.N {
			_ = calculator.TriggerRebalance(context.Background())
			time.Sleep(200 * time.Microsecond) // rebalances are rare
		}
		subscription.Cancel()
	}()
	report(b, delaysOf(b, subscription, func(Event) {}))
}

// delaysOf measures how long each transition took to arrive, and calls then with it.
func delaysOf(b *testing.B, subscription *Subscription, then func(Event)) []time.Duration {
	delays := make([]time.Duration, 0, 4*b.N)
	for event := range subscription.C {
		if event.Kind == EventCalculatorState && event.From != event.State {
			delays = append(delays, monotonic()-event.Time)
			then(event)
		}
	}
	return delays
}

// As above, caused by a change of the fleet, as in a service: a worker joins and leaves.
func BenchmarkTransitionOfAFleetToChannel(b *testing.B) {
	config := config(memory(b))
	config.Cooldown, config.PlannedScaleWindow = time.Millisecond, time.Millisecond
	config.Settings["leave_window"], config.Settings["join_coalescing"] = "1ms", "1ms"
	calculator := started(b, config)
	subscription, err := calculator.Subscribe()
	must(b, err)
	divided := make(chan struct{}, 1)
	go func() {
		defer subscription.Cancel()
		for round := range b.N {
			ctx, key := context.Background(), "heartbeat.w-2"
			if round%2 == 0 {
				_ = config.Store.Put(ctx, BucketHeartbeat, key, []byte("up"))
			} else {
				_ = config.Store.Delete(ctx, BucketHeartbeat, key)
			}
			select {
			case <-divided:
			case <-time.After(10 * time.Second):
				return // and then there are too few of them
			}
			time.Sleep(200 * time.Microsecond)
		}
	}()
	delays := delaysOf(b, subscription, func(event Event) {
		if event.State == CalculatorStateIdle {
			divided <- struct{}{}
		}
	})
	if len(delays) < 2*b.N {
		b.Fatal("too few transitions:", len(delays))
	}
	report(b, delays)
}

// A rebalance of 100 000 partitions for 1 000 workers, by a strategy in Go and by the same strategy
// of the library. The difference is the cost of passing the partitions and the plan.
func BenchmarkRebalance(b *testing.B) {
	for _, way := range []string{"round_robin", "go"} {
		b.Run(way, func(b *testing.B) {
			store := memory(b)
			config := config(store)
			config.Source = nil
			config.Settings["strategy"] = "round_robin"
			inside, rounds := time.Duration(0), 0
			if way == "go" {
				config.Strategy = strategyFunc(func(workers []string, partitions []Partition) (map[string][]Partition, error) {
					start := time.Now()
					plan := make(map[string][]Partition, len(workers))
					for index, partition := range partitions {
						worker := workers[index%len(workers)]
						plan[worker] = append(plan[worker], partition)
					}
					inside += time.Since(start)
					rounds++
					return plan, nil
				})
			}
			must(b, store.Ensure(patient(b), BucketHeartbeat, 0))
			for worker := range 1_000 {
				must(b, store.Put(patient(b), BucketHeartbeat, fmt.Sprintf("heartbeat.w-%04d", worker), []byte("up")))
			}
			config.HeartbeatTTL = time.Hour
			calculator := calculator(b, config)
			must(b, calculator.SetPartitions(large(100_000)))
			must(b, calculator.Start(patient(b)))
			must(b, calculator.TriggerRebalance(patient(b)))
			inside, rounds = 0, 0
			for range b.N {
				must(b, calculator.TriggerRebalance(patient(b)))
			}
			if rounds > 0 {
				b.ReportMetric(float64(inside.Milliseconds())/float64(rounds), "strategy-ms/op")
			}
		})
	}
}

func large(count int) []Partition {
	list := make([]Partition, count)
	for index := range list {
		list[index] = Partition{Keys: []string{"topic", fmt.Sprintf("p-%07d", index)}, Weight: 100}
	}
	return list
}

func report(b *testing.B, delays []time.Duration) {
	if len(delays) == 0 {
		b.Fatal("no transition")
	}
	slices.Sort(delays)
	b.ReportMetric(float64(delays[len(delays)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(delays[len(delays)*9/10].Microseconds()), "p90-us")
	b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds()), "p99-us")
}

// monotonic reads the clock of the event time stamps: CLOCK_BOOTTIME.
func monotonic() time.Duration {
	var now syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 7, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}
