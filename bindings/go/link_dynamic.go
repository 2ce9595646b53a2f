//go:build cgo && divvy_dynamic

package divvy

// #cgo pkg-config: divvy
import "C"

// LinkInfo describes how the C library is linked.
const LinkInfo = "dynamic, by pkg-config"
