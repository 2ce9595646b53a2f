// Package foreign tests divvy as the leader of a fleet of workers that know nothing of divvy: plain
// NATS clients that write heartbeats and read assignments as the wire format says. A module of its
// own, so that the binding needs no NATS client.
//
// The package predecessor below it is a whole process of such a fleet, one that may lead as well, and
// cmd/predecessor the command of it for tests that mix fleets.
package foreign
