//! What kind of world a seed makes.

use crate::rng::Rng;

/// Where the state machines live: the two ways that the crate documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// Small ones, as checkpoints in the log.
    InLog,
    /// In files of their own, which lag behind; the log is told what is durable there.
    OfTheirOwn,
    /// The same, and the log's own report is used as well (`Wal::durable_applied`).
    Reported,
}

/// A bug in the code that drives the groups, which the checks must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Messages are sent as soon as they are written.
    SentAtOnce,
    /// Disks report a sync that they did not do.
    SyncsIgnored,
    /// An opening finds a hard state without its vote.
    VotesForgotten,
    /// The log is told more than the state machine has made durable.
    AppliedTooEarly,
    /// A snapshot is in the log before it is in the state machine's file.
    SnapshotTooLate,
    /// A checkpoint has the configuration of the one before.
    OldConfiguration,
    /// A lost replica comes back blank, with its old id.
    BackBlank,
    /// raft is told that a Ready is durable as soon as it is written.
    PersistedAtOnce,
}

/// Length of a log of which not everything is in memory.
pub const FETCHED: u64 = 16 << 20;

#[derive(Clone, Debug)]
pub struct Manner {
    pub stores: u64,
    pub groups: u64,
    pub pollers: u64,
    pub machines: Machines,
    pub pre_vote: bool,
    pub check_quorum: bool,
    pub skip_bcast_commit: bool,
    pub batch_append: bool,
    pub max_size_per_msg: u64,
    pub max_committed_size_per_ready: u64,
    pub max_inflight_msgs: usize,
    pub capacity: u64,
    pub payload: u64,
    pub retain: u64,
    /// Nothing is compacted before the log is full.
    pub hoards: bool,
    /// A round takes everything, however large that is.
    pub gathers: bool,
    /// Replicas may be found damaged when their store comes back.
    pub rots: bool,
    /// Entries are applied some time after they were handed over.
    pub late: bool,
    /// Old entries are read by another thread.
    pub fetch: bool,
    pub members_change: bool,
    /// Percentages of deliveries.
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    /// Percentage of the steps.
    pub crashes: u64,
    pub steps: u64,
    pub plant: Option<Plant>,
}

impl Manner {
    pub fn of(rng: &mut Rng, plant: Option<Plant>) -> Self {
        let machines = [Machines::InLog, Machines::OfTheirOwn, Machines::Reported];
        let machines = match plant {
            Some(Plant::AppliedTooEarly | Plant::SnapshotTooLate) => Machines::OfTheirOwn,
            Some(Plant::OldConfiguration) => Machines::InLog,
            _ => machines[rng.below(3) as usize],
        };
        let fetch = rng.chance(20);
        let (unsteady, hoards) = (rng.chance(70), !fetch && rng.chance(20));
        Self {
            stores: 3 + rng.below(3),
            groups: 1 + rng.below(4),
            pollers: 1 + rng.below(2),
            machines,
            pre_vote: rng.chance(50),
            check_quorum: rng.chance(50),
            skip_bcast_commit: rng.chance(50),
            batch_append: rng.chance(50),
            max_size_per_msg: if rng.chance(30) { 512 } else { 8 << 10 },
            max_committed_size_per_ready: if rng.chance(30) { 700 } else { 1 << 20 },
            max_inflight_msgs: 2 + rng.below(60) as usize,
            capacity: match (fetch, hoards) {
                (true, _) => FETCHED,
                (_, true) => 768 << 10,
                _ => (1 << 20) << rng.below(3),
            },
            payload: match (fetch, hoards) {
                (true, _) => 30_000,
                (_, true) => 6000,
                _ => [40, 300, 6000][rng.below(3) as usize],
            },
            retain: if fetch { 400 } else { rng.below(12) },
            hoards,
            gathers: rng.chance(30),
            rots: rng.chance(50) && plant.is_none(),
            late: rng.chance(30),
            fetch,
            members_change: rng.chance(65),
            lost: if unsteady { rng.below(20) } else { 0 },
            doubled: if unsteady { rng.below(10) } else { 0 },
            reordered: if unsteady { rng.below(60) } else { 0 },
            crashes: rng.below(4),
            steps: 600 + rng.below(900),
            plant,
        }
    }

    pub fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    pub fn in_log(&self) -> bool {
        self.machines == Machines::InLog
    }
}
