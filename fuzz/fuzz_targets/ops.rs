//! The fuzz target `ops`: what the input is and what must hold is in `harness/ops.rs`.
#![no_main]
#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::ops::run(bytes));
