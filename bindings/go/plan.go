package divvy

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"
)

// planInput is the input of a strategy, unpacked from the block that bridge.c packs.
type planInput struct {
	workers    []string
	partitions []Partition
	// The keys of all partitions in sequence, and the partition of each key.
	keys   []string
	ofKeys []uint32
	// Index by joined keys, for partitions that the strategy copied; built on first use.
	byName map[string]uint32
}

// unpack reads the block. The strings are copies.
func unpack(packed string) *planInput {
	text := strings.Clone(packed)
	data := unsafe.Slice(unsafe.StringData(text), len(text))
	at := 0
	word := func() int {
		at += 4
		return int(binary.NativeEndian.Uint32(data[at-4:]))
	}
	long := func() uint64 {
		at += 8
		return binary.NativeEndian.Uint64(data[at-8:])
	}
	read := func() string {
		length := word()
		at += length
		return text[at-length : at]
	}
	input := &planInput{
		workers:    make([]string, long()),
		partitions: make([]Partition, long()),
	}
	for index := range input.workers {
		input.workers[index] = read()
	}
	input.keys = make([]string, 0, 2*len(input.partitions))
	input.ofKeys = make([]uint32, 0, 2*len(input.partitions))
	ends := make([]int, len(input.partitions))
	for index := range input.partitions {
		input.partitions[index].Weight = int64(long())
		for range word() {
			input.keys = append(input.keys, read())
			input.ofKeys = append(input.ofKeys, uint32(index))
		}
		ends[index] = len(input.keys)
	}
	start := 0
	for index, end := range ends {
		input.partitions[index].Keys = input.keys[start:end:end]
		start = end
	}
	return input
}

// owners writes the owner of each partition.
func (input *planInput) owners(plan map[string][]Partition, to []uint32) error {
	if len(to) != len(input.partitions) {
		return fmt.Errorf("divvy: %d places for %d partitions", len(to), len(input.partitions))
	}
	given := make([]bool, len(to))
	known := 0
	for index, worker := range input.workers {
		partitions, planned := plan[worker]
		if planned {
			known++
		}
		for _, partition := range partitions {
			place, found := input.place(partition)
			if !found {
				return fmt.Errorf("divvy: the strategy invented the partition %q", partition.Keys)
			}
			if given[place] {
				return fmt.Errorf("divvy: the strategy gave the partition %q twice", partition.Keys)
			}
			given[place] = true
			to[place] = uint32(index)
		}
	}
	if known != len(plan) {
		return fmt.Errorf("divvy: the strategy invented %d workers", len(plan)-known)
	}
	for place := range given {
		if !given[place] {
			return fmt.Errorf("divvy: the strategy left out the partition %q", input.partitions[place].Keys)
		}
	}
	return nil
}

// place returns the index of a partition. Partitions passed to the strategy are identified by the
// address of their keys.
func (input *planInput) place(partition Partition) (uint32, bool) {
	if len(partition.Keys) == 0 {
		return 0, false
	}
	if len(input.keys) > 0 {
		first := uintptr(unsafe.Pointer(&input.keys[0]))
		offset := uintptr(unsafe.Pointer(&partition.Keys[0])) - first
		index := offset / unsafe.Sizeof(input.keys[0])
		if index < uintptr(len(input.keys)) && offset%unsafe.Sizeof(input.keys[0]) == 0 {
			place := input.ofKeys[index]
			if own := input.partitions[place].Keys; &own[0] == &partition.Keys[0] && len(own) == len(partition.Keys) {
				return place, true
			}
		}
	}
	if input.byName == nil {
		input.byName = make(map[string]uint32, len(input.partitions))
		for index := range input.partitions {
			input.byName[name(input.partitions[index].Keys)] = uint32(index)
		}
	}
	place, found := input.byName[name(partition.Keys)]
	return place, found
}

// name identifies a partition; keys from C contain no NUL.
func name(keys []string) string {
	return strings.Join(keys, "\x00")
}
