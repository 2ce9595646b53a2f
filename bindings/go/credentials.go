//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"context"
	"runtime/cgo"
	"unsafe"
)

// credentialSource supplies the credentials of one store.
type credentialSource struct {
	// Ends when the store is closed.
	ctx    context.Context
	supply func(ctx context.Context, nonce []byte) (NATSCredentials, error)
}

// register sets the callback on a configuration of the C library.
func (s *credentialSource) register(config C.divvy_config, op string) error {
	var text errorText
	buffer, size := text.at()
	handle := cgo.NewHandle(s)
	err := check(C.divvy_go_set_credentials(config, C.uintptr_t(handle), buffer, size), op, &text)
	if err != nil {
		handle.Delete()
	}
	return err
}

//export divvyGoCredentials
func divvyGoCredentials(handle C.uintptr_t, nonce *C.char, length C.size_t, id C.uint64_t) C.int32_t {
	source := cgo.Handle(handle).Value().(*credentialSource)
	return callbackResult(guarded("credentials callback", func() error {
		supplied, err := source.supply(source.ctx, bytesOf(nonce, length))
		if err != nil {
			return err
		}
		return supplied.set(C.divvy_credentials{id: id})
	}))
}

func (c NATSCredentials) set(credentials C.divvy_credentials) (err error) {
	var text errorText
	buffer, size := text.at()
	if c.JWT == "" {
		cText(c.Token, func(token *C.char) {
			err = check(C.divvy_credentials_set_token(credentials, token, buffer, size), "connect", &text)
		})
		return err
	}
	jwt := (*C.char)(unsafe.Pointer(unsafe.StringData(c.JWT)))
	signature := (*C.char)(unsafe.Pointer(unsafe.SliceData(c.Signature)))
	status := C.divvy_credentials_set_jwt(
		credentials, jwt, C.size_t(len(c.JWT)), signature, C.size_t(len(c.Signature)), buffer, size)
	return check(status, "connect", &text)
}
