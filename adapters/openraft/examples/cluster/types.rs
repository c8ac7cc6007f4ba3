//! What the raft groups agree on, and which group a key belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// One shard of the store.
    pub Types: D = Put, R = (), NodeId = u64, Node = openraft::EmptyNode,
);

pub type Raft = openraft::Raft<Types, crate::machine::Machine>;

/// Sets a key. A write that is tried again carries the same version, and one that arrives late changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Put {
    pub key: String,
    pub value: Versioned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned {
    pub version: u64,
    pub text: String,
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.value.text, self.value.version)
    }
}

/// The group that holds a key: FNV-1a, the same in every process.
pub fn group_of(key: &str, groups: u64) -> u64 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // FNV's low bits are its weakest.
    (hash ^ (hash >> 32)) % groups
}
