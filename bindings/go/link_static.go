//go:build cgo && !divvy_dynamic

package divvy

/*
#cgo CFLAGS: -I${SRCDIR}/include
#cgo LDFLAGS: ${SRCDIR}/lib/libdivvy.a -lm
#cgo linux LDFLAGS: -lgcc_s -lutil -lrt -lpthread -ldl
*/
import "C"

import (
	// For their files, so that they are vendored.
	_ "github.com/divvy-rs/divvy/bindings/go/include"
	_ "github.com/divvy-rs/divvy/bindings/go/lib"
)

// LinkInfo tells how the C library is linked.
const LinkInfo = "static, from the module"
