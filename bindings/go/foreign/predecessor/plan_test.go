package predecessor

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
)

func vectors(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../../../tests/vectors/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func TestPartitionHashesMatchVectors(t *testing.T) {
	var file struct {
		Cases []struct {
			Keys       []string
			Seed, Hash string
		}
	}
	vectors(t, "partition_hashes.json", &file)
	for _, test := range file.Cases {
		seed, err := strconv.ParseUint(test.Seed, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if hash := fmt.Sprintf("%016x", hashKeys(test.Keys, seed)); hash != test.Hash {
			t.Errorf("%q under %s: %s instead of %s", test.Keys, test.Seed, hash, test.Hash)
		}
	}
}

func TestKeyPlacementMatchesVectors(t *testing.T) {
	var file struct {
		Cases []struct {
			Workers      []string
			VirtualNodes int `json:"virtual_nodes"`
			Seed         string
			Lookups      map[string]string
		}
	}
	vectors(t, "rings.json", &file)
	for _, test := range file.Cases {
		seed, err := strconv.ParseUint(test.Seed, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		ring := newRing(test.Workers, test.VirtualNodes, seed)
		for key, worker := range test.Lookups {
			if owner := ring.owner(hashKeys([]string{key}, seed)); owner != worker {
				t.Errorf("%s of %d nodes each of %q: %s instead of %s", key, test.VirtualNodes, test.Workers, owner, worker)
			}
		}
	}
}

func TestPlansMatchVectors(t *testing.T) {
	var file struct {
		Cases []struct {
			Strategy            string
			Workers, Partitions int
			VirtualNodes        int `json:"virtual_nodes"`
			Seed                string
			Digest              string `json:"owners_sha256"`
		}
	}
	vectors(t, "plans.json", &file)
	tried := map[string]int{}
	for _, test := range file.Cases {
		isOurs := test.Strategy == RoundRobin ||
			test.Strategy == ConsistentHash && test.VirtualNodes == virtualNodes && test.Seed == "0000000000000000"
		if !isOurs {
			continue
		}
		tried[test.Strategy]++
		workers := make([]string, test.Workers)
		number := map[string]int{}
		for index := range workers {
			workers[index] = fmt.Sprintf("worker-%d", index)
			number[workers[index]] = index
		}
		slices.Sort(workers)
		partitions := make([]Partition, test.Partitions)
		for index := range partitions {
			partitions[index].Keys = []string{"topic", "p", fmt.Sprintf("%07d", index)}
		}
		division, err := plan(test.Strategy, workers, partitions)
		if err != nil {
			t.Fatal(err)
		}
		owners := map[string]int{}
		for worker, held := range division {
			for _, partition := range held {
				owners[partition.ID()] = number[worker]
			}
		}
		digest := sha256.New()
		for _, partition := range partitions {
			fmt.Fprintln(digest, owners[partition.ID()])
		}
		if found := fmt.Sprintf("%x", digest.Sum(nil)); found != test.Digest {
			t.Errorf("%s of %d partitions to %d workers differs", test.Strategy, test.Partitions, test.Workers)
		}
	}
	if tried[RoundRobin] == 0 || tried[ConsistentHash] == 0 {
		t.Fatal(tried)
	}
}

func TestUnknownStrategyIsRejected(t *testing.T) {
	if _, err := plan("sticky", []string{"w"}, nil); err == nil {
		t.Fatal("taken")
	}
}
