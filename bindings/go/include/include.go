// Package include holds the C header that the binding is compiled with. It has no Go code; being a
// package keeps the folder when modules are vendored.
package include
