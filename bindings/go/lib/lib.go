// Package lib holds the static C library that the binding is linked with. It has no Go code; being
// a package keeps the folder when modules are vendored.
package lib
