//! A state machine in memory that remembers what was applied to it.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend};

use crate::support::Types;

#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub applied: Option<LogIdOf<Types>>,
    pub membership: StoredMembershipOf<Types>,
    pub lines: Vec<String>,
}

/// A snapshot that was built, and its position.
type Kept = (SnapshotMetaOf<Types>, Contents);

/// Clones share one machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    contents: Arc<Mutex<Contents>>,
    snapshot: Arc<Mutex<Option<Kept>>>,
}

impl Machine {
    /// As if it had applied everything up to here.
    pub fn at(&mut self, applied: LogIdOf<Types>) {
        self.contents.lock().unwrap().applied = Some(applied);
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Contents;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Contents>> {
        let contents = self.contents.lock().unwrap().clone();
        let meta =
            SnapshotMetaOf::<Types> { last_log_id: contents.applied, last_membership: contents.membership.clone() };
        *self.snapshot.lock().unwrap() = Some((meta.clone(), contents.clone()));
        Ok(SnapshotOf::<Types, Contents> { meta, snapshot: contents })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Contents;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        let contents = self.contents.lock().unwrap();
        Ok((contents.applied, contents.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(one) = entries.next().await {
            let (entry, responder) = one?;
            let mut contents = self.contents.lock().unwrap();
            contents.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(line) => contents.lines.push(line),
                EntryPayload::Membership(members) => {
                    contents.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), members);
                }
            }
            if let Some(responder) = responder {
                responder.send(contents.lines.len().to_string());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, snapshot: Contents) -> io::Result<()> {
        *self.contents.lock().unwrap() = snapshot.clone();
        *self.snapshot.lock().unwrap() = Some((meta.clone(), snapshot));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Contents>>> {
        let snapshot = self.snapshot.lock().unwrap().clone();
        Ok(snapshot.map(|(meta, snapshot)| SnapshotOf::<Types, Contents> { meta, snapshot }))
    }
}
