//! The state machine of a group: small, deterministic, and sensitive to every byte that it ever applied.

use raft::eraftpb::Entry;

use crate::Result;
use crate::rng::mix;

/// Slots of a small map beside the hash chain; a proposal's id determines its slot.
pub const SLOTS: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Number of proposals applied to it.
    pub count: u32,
    /// Hash of the last one.
    pub last: u64,
}

/// Two replicas are equal if and only if they applied the same entries in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Index of the last entry applied.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Number of proposals applied: all entries except those with which leaders begin.
    pub count: u64,
    /// Running hash over everything applied.
    pub chain: u64,
    pub slots: [Slot; SLOTS],
}

impl Machine {
    /// The state at the start of a group, before any entry.
    pub fn at(index: u64, term: u64) -> Self {
        Machine { index, term, ..Machine::default() }
    }

    /// Applies the next entry. Returns the proposal's id if it is one.
    pub fn apply(&mut self, entry: &Entry) -> Result<Option<u64>> {
        if entry.index != self.index + 1 {
            return Err(format!("entry {} cannot be applied behind {}", entry.index, self.index).into());
        }
        (self.index, self.term) = (entry.index, entry.term);
        let hash = hash(&entry.data);
        for word in [entry.index, entry.term, hash] {
            self.chain = mix(self.chain.rotate_left(23) ^ word);
        }
        let Ok(id) = entry.context[..].try_into().map(u64::from_le_bytes) else {
            return Ok(None);
        };
        self.count += 1;
        let slot = &mut self.slots[slot_of(id)];
        slot.count += 1;
        slot.last = hash;
        Ok(Some(id))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + SLOTS * 12);
        for word in [self.index, self.term, self.count, self.chain] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for slot in &self.slots {
            out.extend_from_slice(&slot.count.to_le_bytes());
            out.extend_from_slice(&slot.last.to_le_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (words, slots) = bytes.split_at_checked(32).ok_or("a machine's bytes end early")?;
        let word = |i: usize| u64_at(words, i * 8);
        let (index, term, count, chain) = (word(0)?, word(1)?, word(2)?, word(3)?);
        let mut machine = Machine { index, term, count, chain, slots: Default::default() };
        if slots.len() != SLOTS * 12 {
            return Err("a machine's bytes have the wrong length".into());
        }
        for (slot, bytes) in machine.slots.iter_mut().zip(slots.chunks_exact(12)) {
            slot.count = u64_at(bytes, 0)? as u32;
            slot.last = u64_at(bytes, 4)?;
        }
        Ok(machine)
    }
}

/// The slot a proposal goes to.
pub fn slot_of(id: u64) -> usize {
    (mix(id) % SLOTS as u64) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + 8).ok_or("a machine's bytes end early")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state ^ u64::from_le_bytes(word));
    }
    state
}
