//go:build !cgo

package divvy

import (
	"context"
	"encoding/json"
	"io"
	"time"
)

// LinkInfo describes how the C library is linked.
const LinkInfo = "not at all: built without cgo"

// Version is empty without cgo.
func Version() string { return "" }

// SetLogger returns ErrNoCgo.
func SetLogger(Logger) error { return ErrNoCgo }

// Store is not available without cgo.
type Store struct{}

// NewMemoryStore returns ErrNoCgo.
func NewMemoryStore() (*Store, error) { return nil, ErrNoCgo }

// ConnectNATS returns ErrNoCgo.
func ConnectNATS(context.Context, NATSOptions) (*Store, error) { return nil, ErrNoCgo }

// Close does nothing.
func (*Store) Close() error { return nil }

// Ensure returns ErrNoCgo.
func (*Store) Ensure(context.Context, Bucket, time.Duration) error { return ErrNoCgo }

// Put returns ErrNoCgo.
func (*Store) Put(context.Context, Bucket, string, []byte) error { return ErrNoCgo }

// Delete returns ErrNoCgo.
func (*Store) Delete(context.Context, Bucket, string) error { return ErrNoCgo }

// Get returns ErrNoCgo.
func (*Store) Get(context.Context, Bucket, string) ([]byte, error) { return nil, ErrNoCgo }

// Validate returns ErrNoCgo.
func (*Config) Validate() error { return ErrNoCgo }

// Describe returns ErrNoCgo.
func (*Config) Describe() ([]Setting, error) { return nil, ErrNoCgo }

// Describe returns ErrNoCgo.
func (*ManagerConfig) Describe() ([]Setting, error) { return nil, ErrNoCgo }

// Calculator is not available without cgo.
type Calculator struct{}

// NewCalculator returns ErrNoCgo.
func NewCalculator(*Config) (*Calculator, error) { return nil, ErrNoCgo }

// Start returns ErrNoCgo.
func (*Calculator) Start(context.Context) error { return ErrNoCgo }

// Stop returns ErrNoCgo.
func (*Calculator) Stop(context.Context) error { return ErrNoCgo }

// Close does nothing.
func (*Calculator) Close() error { return nil }

// IsStarted is false.
func (*Calculator) IsStarted() bool { return false }

// GetState is Idle.
func (*Calculator) GetState() CalculatorState { return CalculatorStateIdle }

// GetScalingReason is empty.
func (*Calculator) GetScalingReason() string { return "" }

// CurrentVersion is 0.
func (*Calculator) CurrentVersion() int64 { return 0 }

// TriggerRebalance returns ErrNoCgo.
func (*Calculator) TriggerRebalance(context.Context) error { return ErrNoCgo }

// Refresh returns ErrNoCgo.
func (*Calculator) Refresh(context.Context) error           { return ErrNoCgo }
func (*Calculator) ConfirmPartitions(context.Context) error { return ErrNoCgo }

// SetPartitions returns ErrNoCgo.
func (*Calculator) SetPartitions([]Partition) error { return ErrNoCgo }

// Status returns ErrNoCgo.
func (*Calculator) Status() (json.RawMessage, error) { return nil, ErrNoCgo }

// WriteMetrics returns ErrNoCgo.
func (*Calculator) WriteMetrics(io.Writer) error { return ErrNoCgo }

// Subscription is not available without cgo.
type Subscription struct{ C <-chan Event }

// Cancel does nothing.
func (*Subscription) Cancel() {}

// Err is ErrNoCgo.
func (*Subscription) Err() error { return ErrNoCgo }

// Subscribe returns ErrNoCgo.
func (*Calculator) Subscribe() (*Subscription, error) { return nil, ErrNoCgo }

// SubscribeToStateChanges is a closed channel.
func (*Calculator) SubscribeToStateChanges() (<-chan CalculatorState, func()) {
	states := make(chan CalculatorState)
	close(states)
	return states, func() {}
}

// SubscribeJSON returns ErrNoCgo.
func (*Calculator) SubscribeJSON() (*JSONSubscription, error) { return nil, ErrNoCgo }

// SubscribeJSON returns ErrNoCgo.
func (*Manager) SubscribeJSON() (*JSONSubscription, error) { return nil, ErrNoCgo }

// JSONSubscription is not available without cgo.
type JSONSubscription struct{ C <-chan json.RawMessage }

// Cancel does nothing.
func (*JSONSubscription) Cancel() {}

// Err is ErrNoCgo.
func (*JSONSubscription) Err() error { return ErrNoCgo }

// Validate returns ErrNoCgo.
func (*ManagerConfig) Validate() error { return ErrNoCgo }

// Manager is not available without cgo.
type Manager struct{}

// NewManager returns ErrNoCgo.
func NewManager(*ManagerConfig) (*Manager, error) { return nil, ErrNoCgo }

// Start returns ErrNoCgo.
func (*Manager) Start(context.Context) error { return ErrNoCgo }

// Stop returns ErrNoCgo.
func (*Manager) Stop(context.Context, Departure) error { return ErrNoCgo }

// Close does nothing.
func (*Manager) Close() error { return nil }

// IsStarted is false.
func (*Manager) IsStarted() bool { return false }

// WorkerID is empty.
func (*Manager) WorkerID() string { return "" }

// IsLive is false.
func (*Manager) IsLive() bool { return false }

// IsReady is false.
func (*Manager) IsReady() bool { return false }

// IsLeader is false.
func (*Manager) IsLeader() bool { return false }

// Leader is empty.
func (*Manager) Leader() string { return "" }

// State is ManagerStateInit.
func (*Manager) State() ManagerState { return ManagerStateInit }

// WaitState returns ErrNoCgo.
func (*Manager) WaitState(context.Context, ManagerState) error { return ErrNoCgo }

// Assignment returns ErrNoCgo.
func (*Manager) Assignment() (Assignment, error) { return Assignment{}, ErrNoCgo }

// RefreshPartitions returns ErrNoCgo.
func (*Manager) RefreshPartitions(context.Context) error { return ErrNoCgo }
func (*Manager) ConfirmPartitions(context.Context) error { return ErrNoCgo }

// TriggerRebalance returns ErrNoCgo.
func (*Manager) TriggerRebalance(context.Context) error { return ErrNoCgo }

// SetPartitions returns ErrNoCgo.
func (*Manager) SetPartitions([]Partition) error { return ErrNoCgo }

// Status returns ErrNoCgo.
func (*Manager) Status() (json.RawMessage, error) { return nil, ErrNoCgo }

// WriteMetrics returns ErrNoCgo.
func (*Manager) WriteMetrics(io.Writer) error { return ErrNoCgo }

// ManagerSubscription is not available without cgo.
type ManagerSubscription struct{ C <-chan ManagerEvent }

// Cancel does nothing.
func (*ManagerSubscription) Cancel() {}

// Err is ErrNoCgo.
func (*ManagerSubscription) Err() error { return ErrNoCgo }

// Subscribe returns ErrNoCgo.
func (*Manager) Subscribe() (*ManagerSubscription, error) { return nil, ErrNoCgo }

// SubscribeToStateChanges is a closed channel.
func (*Manager) SubscribeToStateChanges() (<-chan ManagerState, func()) {
	states := make(chan ManagerState)
	close(states)
	return states, func() {}
}
