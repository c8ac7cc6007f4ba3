//! A state machine that remembers which entries it applied.

use std::io::Cursor;
use std::sync::Arc;

use openraft_09::entry::RaftPayload;
use openraft_09::storage::RaftStateMachine;
use openraft_09::{
    EmptyNode, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StoredMembership,
};
use tokio::sync::watch;

use crate::Types;

type Stored<T> = Result<T, StorageError<u64>>;
type Members = StoredMembership<u64, EmptyNode>;

#[derive(Clone, Debug, Default)]
struct Contents {
    applied: Vec<LogId<u64>>,
    members: Members,
}

/// Clones share one machine.
#[derive(Clone, Debug)]
pub struct Machine(Arc<watch::Sender<Contents>>);

impl Default for Machine {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Contents::default())))
    }
}

impl Machine {
    pub fn applied(&self) -> Vec<LogId<u64>> {
        self.0.borrow().applied.clone()
    }

    /// Waits until this entry is applied.
    pub async fn until(&self, index: u64) {
        self.0.subscribe().wait_for(|contents| contents.applied.len() as u64 > index).await.unwrap();
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, Members)> {
        let now = self.0.borrow();
        Ok((now.applied.last().copied(), now.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<()>>
    where
        I: IntoIterator<Item = openraft_09::Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.0.send_modify(|contents| {
                contents.applied.push(entry.log_id);
                if let Some(members) = entry.get_membership() {
                    contents.members = Members::new(Some(entry.log_id), members.clone());
                }
            });
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta<u64, EmptyNode>, _: Box<Cursor<Vec<u8>>>) -> Stored<()> {
        unreachable!("nobody takes one")
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(None)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        unreachable!("nobody takes one")
    }
}
