//! The network: it loses, duplicates and reorders, and is partitioned now and then.

use raft::eraftpb::{EntryType, Message};

use crate::manner::Manner;
use crate::rng::Rng;

/// A message, and its group. Ids belong to one life of a replica; an id modulo a hundred is the store.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub group: u64,
    pub message: Message,
}

pub fn store_of(id: u64) -> u64 {
    id % 100
}

#[derive(Debug)]
pub struct Network {
    mail: Vec<Vec<Envelope>>,
    /// Stores that are cut off in both directions.
    apart: Vec<bool>,
    pub lost: u64,
    doubled: u64,
    reordered: u64,
}

impl Network {
    pub fn new(manner: &Manner) -> Self {
        let stores = manner.stores as usize;
        let Manner { lost, doubled, reordered, .. } = *manner;
        Self { mail: vec![Vec::new(); stores], apart: vec![false; stores], lost, doubled, reordered }
    }

    /// Nothing is lost any more.
    pub fn heal(&mut self) {
        self.apart.fill(false);
        (self.lost, self.doubled, self.reordered) = (0, 0, 0);
    }

    pub fn part(&mut self, store: u64) {
        self.apart[store as usize - 1] ^= true;
    }

    pub fn send(&mut self, envelope: Envelope) {
        let to = store_of(envelope.message.to) as usize;
        if let Some(mail) = self.mail.get_mut(to - 1) {
            mail.push(envelope);
        }
    }

    /// Drops what was on its way to a store that is gone.
    pub fn drop_mail(&mut self, store: u64) {
        self.mail[store as usize - 1].clear();
    }

    /// Whether a change of the group's configuration is on its way.
    pub fn carries_change(&self, group: u64) -> bool {
        let mut entries =
            self.mail.iter().flatten().filter(|one| one.group == group).flat_map(|one| one.message.get_entries());
        entries.any(|entry| entry.get_entry_type() != EntryType::EntryNormal)
    }

    pub fn waits(&self, store: u64) -> usize {
        self.mail[store as usize - 1].len()
    }

    /// The next message that arrives at a store, if one does.
    pub fn arrives(&mut self, store: u64, rng: &mut Rng) -> Option<Envelope> {
        let mail = &mut self.mail[store as usize - 1];
        if mail.is_empty() {
            return None;
        }
        let at = if rng.chance(self.reordered) { rng.below(mail.len() as u64) as usize } else { 0 };
        let envelope = if rng.chance(self.doubled) { mail[at].clone() } else { mail.remove(at) };
        let from = store_of(envelope.message.from);
        let parted = from != store && (self.apart[store as usize - 1] || self.apart[from as usize - 1]);
        (!parted && !rng.chance(self.lost)).then_some(envelope)
    }
}
