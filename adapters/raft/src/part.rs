//! The part of a round that is written as one batch.

use std::collections::HashSet;

use raft::Ready;
use strandlog::Batch;

use crate::Error;

/// One batch, and the readies in it. All that a round has of one group is in one part.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub batch: Batch,
    pub readies: Vec<Taken>,
    /// Groups of which it may hold something; a group may be listed several times.
    named: Vec<u64>,
}

/// A Ready that a round has taken over.
#[derive(Debug)]
pub(crate) struct Taken {
    pub group: u64,
    pub ready: Ready,
    /// The Ready brings another term or vote than was written before.
    pub pledges: bool,
}

impl Taken {
    /// Whether raft relies on what the Ready wrote.
    pub fn must_sync(&self) -> bool {
        self.pledges || self.ready.must_sync()
    }
}

impl Part {
    /// The batch, to put something of that group into it.
    pub fn batch_for(&mut self, group: u64) -> &mut Batch {
        if self.named.last() != Some(&group) {
            self.named.push(group);
        }
        &mut self.batch
    }

    pub fn names(&self, group: u64) -> bool {
        self.named.contains(&group)
    }

    pub fn needs_sync(&self) -> bool {
        self.readies.iter().any(Taken::must_sync)
    }

    /// Takes the group out of the part.
    pub fn forget(&mut self, group: u64) {
        self.batch.withdraw(group);
        self.readies.retain(|taken| taken.group != group);
        self.named.retain(|&named| named != group);
    }

    /// Splits off the second half of its groups into a part of their own. `None` if there are fewer than two groups.
    pub fn halve(&mut self) -> Option<Self> {
        let mut seen = HashSet::new();
        self.named.retain(|&group| seen.insert(group));
        if self.named.len() < 2 {
            return None;
        }
        let named = self.named.split_off(self.named.len() / 2);
        let goes: HashSet<u64> = named.iter().copied().collect();
        let batch = self.batch.split_off(|group| goes.contains(&group));
        let readies = self.readies.extract_if(.., |taken| goes.contains(&taken.group)).collect();
        Some(Self { batch, readies, named })
    }

    /// The error for a part that is too large although it holds only one group.
    pub fn too_large(&self, bytes: u64, limit: u64) -> Error {
        let index = self.readies.first().and_then(|taken| taken.ready.entries().first()).map_or(0, |entry| entry.index);
        let group = self.named.first().copied().unwrap_or_default();
        Error::TooLarge { group, what: "all of a round", index, bytes, limit }
    }

    /// Empties it; the buffers stay.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.readies.clear();
        self.named.clear();
    }
}
