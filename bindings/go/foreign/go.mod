module github.com/divvy-rs/divvy/bindings/go/foreign

go 1.23

require (
	github.com/divvy-rs/divvy/bindings/go v0.0.0
	github.com/nats-io/nats.go v1.37.0
	github.com/nats-io/nkeys v0.4.7
	github.com/zeebo/xxh3 v1.0.2
)

require (
	github.com/klauspost/compress v1.17.2 // indirect
	github.com/klauspost/cpuid/v2 v2.0.9 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	golang.org/x/crypto v0.18.0 // indirect
	golang.org/x/sys v0.16.0 // indirect
)

replace github.com/divvy-rs/divvy/bindings/go => ../
