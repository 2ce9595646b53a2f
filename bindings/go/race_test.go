//go:build race

package divvy

const raceEnabled = true
