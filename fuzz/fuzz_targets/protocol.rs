#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| divvy::store::nats::fuzz::protocol(data));
