//go:build !race

package divvy

const raceEnabled = false
