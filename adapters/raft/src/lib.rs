//! raft-rs storage over strandlog.
