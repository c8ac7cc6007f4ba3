//! strandlog: the shared write-ahead log of a multi-raft store.
pub mod disk;
