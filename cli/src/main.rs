//! The `strandlog` command: create, inspect, dump and verify log files.
fn main() {}
