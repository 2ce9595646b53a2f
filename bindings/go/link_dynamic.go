//go:build cgo && divvy_dynamic

package divvy

// #cgo pkg-config: divvy
import "C"

// LinkInfo tells how the C library is linked.
const LinkInfo = "dynamic, by pkg-config"
