//! The state machine of a group, and the files of those that keep their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protobuf::Message as _;
use raft::StorageError;
use raft::eraftpb::{ConfState, Entry, Snapshot};
use strandlog_raft::SnapshotSource;

use crate::rng::mix;

/// Two machines are equal if and only if they applied the same entries in the same order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    pub index: u64,
    pub term: u64,
    pub chain: u64,
    /// The configuration as of `index`.
    pub conf_state: ConfState,
}

impl Machine {
    pub fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.index + 1, "entries are applied one after the other");
        (self.index, self.term) = (entry.index, entry.term);
        self.chain = mix(self.chain.rotate_left(23) ^ digest(entry));
    }

    /// The bytes in a checkpoint or a snapshot; the rest is in their metadata.
    pub fn bytes(&self) -> Vec<u8> {
        [self.index, self.chain].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub fn from_bytes(bytes: &[u8], term: u64, conf_state: &ConfState) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(bytes.len(), 16, "a machine's bytes");
        Self { index: word(0), chain: word(8), term, conf_state: conf_state.clone() }
    }

    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let metadata = snapshot.get_metadata();
        let machine = Self::from_bytes(&snapshot.data, metadata.term, metadata.get_conf_state());
        assert_eq!(machine.index, metadata.index, "a snapshot of another index");
        machine
    }
}

/// Hashes the whole entry.
pub fn digest(entry: &Entry) -> u64 {
    let bytes = entry.write_to_bytes().expect("an entry is encoded");
    bytes.chunks(8).fold(bytes.len() as u64, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(state ^ u64::from_le_bytes(word))
    })
}

/// The state machines' files on one store: their content is durable.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<Mutex<BTreeMap<u64, Machine>>>);

impl Files {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Machine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }
}

/// Makes snapshots from those files.
impl SnapshotSource for Files {
    fn snapshot(&self, group: u64, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let files = self.lock();
        let named = |machine: &&Machine| {
            let ConfState { voters, learners, voters_outgoing, learners_next, .. } = &machine.conf_state;
            [voters, learners, voters_outgoing, learners_next].into_iter().any(|ids| ids.contains(&to))
        };
        let of = files.get(&group).filter(|machine| machine.index >= request_index.max(1)).filter(named);
        let machine = of.ok_or(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))?;
        let mut snapshot = Snapshot { data: machine.bytes().into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (machine.index, machine.term);
        metadata.set_conf_state(machine.conf_state.clone());
        Ok(snapshot)
    }
}
