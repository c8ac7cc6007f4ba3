//! The fuzz target `decode`: what the input is and what must hold is in `harness/decode.rs`.
#![no_main]
#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::decode::run(bytes));
