//! The fuzz target `crash_image`: what the input is and what must hold is in `harness/crash.rs`.
#![no_main]
#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::crash::run(bytes));
