//! A state machine in each documented form, for both versions of openraft: `L` is their log id, `M` their membership.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use strandlog::Batch;
use tokio::time::sleep;

use crate::env::{Env, Keeps};
use crate::life::Life;

/// Key of the snapshot that is kept in the log.
const SNAPSHOT: &[u8] = b"snapshot";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contents<L, M> {
    pub applied: Option<L>,
    pub members: M,
    pub lines: Vec<u64>,
    /// The number of entries applied, and a hash of them all.
    pub next: u64,
    hash: u64,
}

/// Not derived: that would require it of `L`, too.
impl<L, M: Default> Default for Contents<L, M> {
    fn default() -> Self {
        Self { applied: None, members: M::default(), lines: Vec::new(), next: 0, hash: 0 }
    }
}

/// An entry, as the state machine sees it.
pub enum What<M> {
    Blank,
    Line(u64),
    Members(M),
}

/// Clones share one machine.
#[derive(Clone)]
pub struct Machine<L, M> {
    pub env: Arc<Env>,
    pub life: Arc<Life>,
    pub group: u64,
    contents: Arc<Mutex<Contents<L, M>>>,
    /// The position of the stored snapshot. Held while one is stored.
    stored: Arc<tokio::sync::Mutex<u64>>,
    report: Arc<Mutex<Option<Report>>>,
}

type Report = Box<dyn Fn(u64) + Send>;

/// What the memberships of both versions have in common.
pub trait Value: Clone + Default + Serialize + DeserializeOwned + Send + 'static {}
impl<T: Clone + Default + Serialize + DeserializeOwned + Send + 'static> Value for T {}

impl<L, M> Machine<L, M>
where
    L: Clone + Serialize + DeserializeOwned + Send + 'static,
    M: Value,
{
    /// Opens it from its files, or from the log.
    pub fn open(env: Arc<Env>, life: Arc<Life>, group: u64) -> Self {
        let machine =
            Self { env, life, group, contents: Arc::default(), stored: Arc::default(), report: Arc::default() };
        let snapshot = machine.snapshot().map(|bytes| decode::<L, M>(&bytes));
        let mut contents = Contents::default();
        if machine.env.keeps != Keeps::InLog {
            machine.life.sync((group, "state"));
            let state = machine.life.read((group, "state"));
            if !state.is_empty() {
                contents = decode(&state);
            }
        }
        if let Some(snapshot) = snapshot {
            *machine.stored.try_lock().unwrap() = snapshot.next;
            if snapshot.next > contents.next {
                contents = snapshot;
            }
        }
        machine.show(&contents, "what it holds at its start");
        *machine.contents.lock().unwrap() = contents;
        machine
    }

    pub fn reports_by(&self, report: impl Fn(u64) + Send + 'static) {
        *self.report.lock().unwrap() = Some(Box::new(report));
    }

    pub fn now(&self) -> Contents<L, M> {
        self.contents.lock().unwrap().clone()
    }

    /// A dead node's further actions are invisible.
    fn show(&self, contents: &Contents<L, M>, how: &str) {
        if self.life.is_alive()
            && let Some(index) = contents.next.checked_sub(1)
        {
            self.env.judge.is_at(self.life.node, self.group, index, contents.hash, how);
        }
    }

    /// Applies entry `index`, of the leader with this term and number.
    pub fn apply(&self, id: L, (term, leader, index): (u64, u64, u64), what: What<M>) {
        let contents = {
            let mut contents = self.contents.lock().unwrap();
            if contents.next != index && self.life.is_alive() {
                let node = self.life.node;
                let (group, next) = (self.group, contents.next);
                self.env.judge.fail(format!("node {node}, group {group}: is to apply {index}, next is {next}"));
            }
            let kind = match what {
                What::Blank => 1,
                What::Line(line) => {
                    contents.lines.push(line);
                    line
                }
                What::Members(members) => {
                    contents.members = members;
                    2
                }
            };
            for part in [term, leader, index, kind] {
                contents.hash = (contents.hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
            contents.applied = Some(id);
            contents.next = index + 1;
            contents.clone()
        };
        self.show(&contents, "what it applied");
        if self.env.keeps != Keeps::InLog {
            self.life.write((self.group, "state"), encode(&contents));
            if self.env.one_in(6) {
                self.sync(contents.next);
            }
        }
    }

    /// The file holds everything before `next`, and is durable now.
    fn sync(&self, next: u64) {
        self.life.sync((self.group, "state"));
        if let (Some(report), Some(index)) = (&*self.report.lock().unwrap(), next.checked_sub(1)) {
            report(index);
        }
    }

    async fn pause(&self, longest: u64) {
        sleep(Duration::from_millis(self.env.below(longest))).await;
    }

    pub async fn build(&self) -> io::Result<(Contents<L, M>, Vec<u8>)> {
        let contents = self.now();
        self.pause(40).await;
        let bytes = encode(&contents);
        self.store(&contents, &bytes).await?;
        if self.env.keeps == Keeps::FilesAndReports {
            self.sync(contents.next);
        }
        Ok((contents, bytes))
    }

    pub async fn install(&self, bytes: &[u8]) -> io::Result<()> {
        let contents = decode(bytes);
        let longest = if self.env.one_in(3) { 1500 } else { 60 };
        if self.env.one_in(3) {
            self.env.want_election(self.group);
        }
        self.pause(longest).await;
        self.store(&contents, bytes).await?;
        self.pause(30).await;
        self.show(&contents, "a snapshot");
        *self.contents.lock().unwrap() = contents.clone();
        if self.env.keeps != Keeps::InLog {
            self.life.write((self.group, "state"), bytes.to_vec());
            self.sync(contents.next);
        }
        if self.life.is_alive() { Ok(()) } else { Err(dead()) }
    }

    /// On return this snapshot, or a later one, is durable.
    async fn store(&self, contents: &Contents<L, M>, bytes: &[u8]) -> io::Result<()> {
        let mut stored = self.stored.lock().await;
        if contents.next < *stored {
            return Ok(());
        }
        if self.env.keeps == Keeps::InLog {
            let mut batch = Batch::new();
            batch.put(self.group, SNAPSHOT, bytes);
            let pending = self.life.wal.submit_async(batch).await.map_err(io::Error::other)?;
            pending.await.map_err(io::Error::other)?;
        } else {
            self.life.write((self.group, "snapshot"), bytes.to_vec());
            self.life.sync((self.group, "snapshot"));
        }
        if !self.life.is_alive() {
            return Err(dead());
        }
        *stored = contents.next;
        Ok(())
    }

    /// The snapshot that was stored last.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        let bytes = if self.env.keeps == Keeps::InLog {
            self.life.wal.replica(self.group).get(SNAPSHOT).unwrap().map(|bytes| bytes.to_vec()).unwrap_or_default()
        } else {
            self.life.read((self.group, "snapshot"))
        };
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }
}

fn dead() -> io::Error {
    io::Error::other("the node is dead")
}

fn encode<L: Serialize, M: Serialize>(contents: &Contents<L, M>) -> Vec<u8> {
    postcard::to_allocvec(contents).unwrap()
}

pub fn decode<L: DeserializeOwned, M: DeserializeOwned>(bytes: &[u8]) -> Contents<L, M> {
    postcard::from_bytes(bytes).unwrap()
}
