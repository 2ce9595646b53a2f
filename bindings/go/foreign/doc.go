// Package foreign tests divvy as the leader of a fleet of foreign workers: plain NATS clients that
// write heartbeats and read assignments in the shared wire format. It is a separate module, so that
// the binding does not depend on a NATS client.
//
// The package predecessor implements a whole process of such a fleet, which may also lead. The
// command cmd/predecessor runs it, for tests of mixed fleets.
package foreign
