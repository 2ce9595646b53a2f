//go:build cgo && !divvy_dynamic

package divvy

/*
#cgo CFLAGS: -I${SRCDIR}/include
#cgo LDFLAGS: ${SRCDIR}/lib/libdivvy.a -lm
#cgo linux LDFLAGS: -lgcc_s -lutil -lrt -lpthread -ldl
*/
import "C"

import (
	// Imported so that `go mod vendor` keeps their files.
	_ "github.com/divvy-rs/divvy/bindings/go/include"
	_ "github.com/divvy-rs/divvy/bindings/go/lib"
)

// LinkInfo describes how the C library is linked.
const LinkInfo = "static, from the module"
