// Package predecessor stands in for a process of parti, the Go library before divvy: written from
// the wire format and from the list of its known faults, which are kept on purpose. With it fleets
// can be tested that mix both.
//
// What it does as parti does, and divvy does not:
//   - renews its stable id, and its leadership, by a put without a condition;
//   - gives its leadership back by a delete without a revision;
//   - has no fence and no term, publishes by one blind put a worker, every worker in each version,
//     and learns its first version from the highest assignment that it finds;
//   - may publish after it has lost the leadership ([Config.Linger]);
//   - reads the heartbeats by listing their keys, and gives up a worker whose key it does not find.
package predecessor
