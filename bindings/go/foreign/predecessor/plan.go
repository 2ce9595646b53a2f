package predecessor

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/zeebo/xxh3"
)

// Partition is a unit of work.
type Partition struct {
	Keys   []string `json:"keys"`
	Weight int64    `json:"weight"`
}

// ID is the partition's keys, joined by dots.
func (p Partition) ID() string { return strings.Join(p.Keys, ".") }

// virtualNodes is the number of virtual nodes per worker on the ring.
const virtualNodes = 150

// Strategies by their names.
const (
	ConsistentHash = "consistent_hash"
	RoundRobin     = "round_robin"
)

// plan divides the partitions among the workers. Each worker has a list, possibly empty.
func plan(strategy string, workers []string, partitions []Partition) (map[string][]Partition, error) {
	if len(workers) == 0 {
		return nil, fmt.Errorf("there is no worker to give partitions to")
	}
	var owner func(number int, partition Partition) string
	switch strategy {
	case ConsistentHash:
		ring := newRing(workers, virtualNodes, 0)
		owner = func(_ int, partition Partition) string { return ring.owner(hashKeys(partition.Keys, 0)) }
	case RoundRobin:
		owner = func(number int, _ Partition) string { return workers[number%len(workers)] }
	default:
		return nil, fmt.Errorf("there is no strategy %q: use %s or %s", strategy, ConsistentHash, RoundRobin)
	}
	division := make(map[string][]Partition, len(workers))
	for _, worker := range workers {
		division[worker] = []Partition{}
	}
	for number, partition := range partitions {
		worker := owner(number, partition)
		division[worker] = append(division[worker], partition)
	}
	return division, nil
}

// ring is a hash ring: a hash belongs to the first node at or after it, wrapping round.
type ring []node

type node struct {
	hash   uint64
	worker string
}

func newRing(workers []string, virtualNodes int, seed uint64) ring {
	nodes := make(ring, 0, len(workers)*virtualNodes)
	for _, worker := range workers {
		name := xxh3.HashStringSeed(worker, seed)
		for number := range virtualNodes {
			place := binary.LittleEndian.AppendUint64(nil, uint64(number))
			nodes = append(nodes, node{xxh3.HashSeed(place, name), worker})
		}
	}
	sort.SliceStable(nodes, func(a, b int) bool { return nodes[a].hash < nodes[b].hash })
	return nodes
}

func (r ring) owner(hash uint64) string {
	place, _ := slices.BinarySearchFunc(r, hash, func(n node, hash uint64) int {
		if n.hash < hash {
			return -1
		}
		return 1
	})
	return r[place%len(r)].worker
}

// hashKeys hashes the first key, then each further key with the previous hash as seed.
func hashKeys(keys []string, seed uint64) uint64 {
	hash := uint64(0)
	for number, key := range keys {
		if number == 0 {
			hash = seed
		}
		hash = xxh3.HashStringSeed(key, hash)
	}
	return hash
}
