// Package predecessor imitates a process of parti, the Go library before divvy. It implements the
// shared wire format and deliberately keeps parti's known faults, for tests of mixed fleets.
//
// Like parti, and unlike divvy, it:
//   - renews its stable id and its leadership by an unconditional put;
//   - releases its leadership by an unconditional delete;
//   - has no fence and no term, publishes by one unconditional put per worker, rewrites every worker
//     in each version, and derives its first version from the highest stored assignment;
//   - may publish after it has lost the leadership ([Config.Linger]);
//   - lists the heartbeat keys, and removes a worker whose key is absent.
package predecessor
