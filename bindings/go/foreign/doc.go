// Package foreign tests divvy as the leader of a fleet of workers that know nothing of divvy: plain
// NATS clients that write heartbeats and read assignments as the wire format says. A module of its
// own, so that the binding needs no NATS client.
package foreign
