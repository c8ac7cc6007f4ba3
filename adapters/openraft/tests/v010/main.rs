//! openraft 0.10: its own storage suite, and what that leaves out.

#![cfg(feature = "v010")]

mod appending;
mod edges;
mod failing;
mod full_log;
mod leader_restore;
mod machine;
mod many_groups;
mod only_wal;
mod power_cut;
mod reopen;
mod scribe;
mod sending;
mod streams;
mod suite;
mod support;
