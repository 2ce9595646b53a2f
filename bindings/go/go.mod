module github.com/divvy-rs/divvy/bindings/go

go 1.23
