//! Gathering: what is alive in the segment, and its bytes.

use bytes::Bytes;

use super::fate::Fate;
use super::group::{Group, Pace, Segments, Stored};
use super::moving::{Moving, Seen};
use crate::engine::{Engine, Oldest};
use crate::error::{Error, Result};
use crate::format::{EntryId, crc};
use crate::index::{Cell, ReplicaState};
use crate::sync::Arc;

/// Payload bytes gathered before they are written: bounds the cleaner's memory.
const SETTLE_BYTES: u64 = 4 << 20;
/// After this many replicas the cleaner looks whether it must hurry.
const LOOK_UP: usize = 32;

/// What an entry holds, and its plain checksum.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    from: Origin<'a>,
    pub crc: u32,
}

#[derive(Debug)]
enum Origin<'a> {
    Segments(&'a [u8]),
    Elsewhere(Bytes),
}

impl Payload<'_> {
    pub fn bytes(&self) -> &[u8] {
        match &self.from {
            Origin::Segments(bytes) => bytes,
            Origin::Elsewhere(bytes) => bytes,
        }
    }
}

impl Engine {
    /// Settles or carries every entry alive in the group. `false`: no room.
    pub(super) fn move_entries(&self, group: &mut Group) -> Result<bool> {
        let mut pledged = Vec::new();
        let moved = self.settle_or_carry(group, &mut pledged);
        // Of the replicas that were not settled in the end.
        for cell in pledged {
            if cell.lock().pledge.is_some() {
                let mut s = self.seq.lock();
                self.redeem(&mut s, &mut cell.lock());
            }
        }
        moved
    }

    fn settle_or_carry(&self, group: &mut Group, pledged: &mut Vec<Arc<Cell>>) -> Result<bool> {
        let mut settle: Vec<Moving> = Vec::new();
        let (mut bytes, mut carried) = (0, 0);
        group.order();
        let participants = group.participants.clone();
        // What is submitted from now on is sealed in this segment or a later one.
        let durable = self.durable() / self.geo.segment_bytes;
        group.hurried = !self.run.background;
        for (i, &id) in participants.iter().enumerate() {
            if !group.hurried && i.is_multiple_of(LOOK_UP) && self.seq.lock().is_short() {
                group.hurried = true;
                if !group.segments.is_read() {
                    self.read_alive(group, participants.get(i..).unwrap_or(&[]));
                }
            }
            group.visited = i + 1;
            let Some(cell) = self.registry.get(id) else { continue };
            let (metadata, alive) = {
                let state = cell.lock();
                let holds = (state.has_metadata_in(|seq| group.holds(seq)), state.has_entry_in(group.lsns()));
                if holds == (false, false) && group.beyond.len() < Oldest::MOST {
                    let oldest = state.oldest_segment(self.head(), self.geo.segment_bytes);
                    group.beyond.push((id, oldest.map_or(durable, |oldest| oldest.min(durable))));
                }
                holds
            };
            // What the replica has in the group only becomes less.
            if metadata {
                group.with_metadata.push(id);
            }
            if !alive {
                continue;
            }
            let Some((moving, fate)) = self.alive_in(group, cell, carried) else { continue };
            let size = moving.entries.iter().map(|e| u64::from(e.loc.len()) + 8).sum::<u64>();
            if matches!(fate, Fate::Carry) {
                carried += size;
                if !self.carry(&moving, group)? {
                    return Ok(false);
                }
                continue;
            }
            pledged.push(Arc::clone(&moving.cell));
            if matches!(fate, Fate::SettleAll)
                && moving.entries.iter().any(|e| e.loc.lsn(self.head()) >= self.durable())
            {
                self.sync()?;
            }
            bytes += size;
            settle.push(moving);
            if bytes >= SETTLE_BYTES {
                if !self.settle(std::mem::take(&mut settle), group)? {
                    return Ok(false);
                }
                bytes = 0;
            }
        }
        if settle.is_empty() { Ok(true) } else { self.settle(settle, group) }
    }

    /// Reads at once what of these replicas is alive in the group, instead of one entry after the other when it is asked for. Only in a
    /// hurry: otherwise commits would find more reads in front of them.
    fn read_alive(&self, group: &mut Group, participants: &[u64]) {
        let (head, lsns) = (self.head(), group.lsns().clone());
        for &id in participants {
            let Some(cell) = self.registry.get(id) else { continue };
            let state = cell.lock();
            for &loc in state.places.spans().iter().flat_map(|s| s.up_to(&lsns)) {
                if group.holds_entry(loc) {
                    group.segments.want(loc.lsn(head), loc.len());
                }
            }
        }
        group.segments.read_wanted(&*self.disk, Pace::hurried(&*self.disk), |_| ());
    }

    /// The replica's entries as they are now: those in the group, or `all` that lie in the journal.
    pub(super) fn seen(&self, cell: &Arc<Cell>, state: &ReplicaState, group: &Group, all: bool) -> Moving {
        let mut entries = Vec::new();
        for span in state.places.spans().iter() {
            let locs = if all { span.locs() } else { span.up_to(group.lsns()) };
            for (i, &loc) in locs.iter().enumerate() {
                let index = span.first() + i as u64;
                if all || group.holds_entry(loc) {
                    entries.push(Seen { index, term: state.terms.get(index).unwrap_or(0), loc });
                }
            }
        }
        Moving { cell: Arc::clone(cell), incarnation: state.incarnation, entries, tail: None }
    }

    /// Reads what is to be moved out of the group, if the disk reads several places at once. `false`: it does not, and nothing was read.
    pub(super) fn read_at_once(&self, moving: &[Moving], group: &mut Group) -> bool {
        if self.disk.at_once() == 1 {
            return false;
        }
        let head = self.head();
        for seen in moving.iter().flat_map(|moving| &moving.entries) {
            group.segments.want(seen.loc.lsn(head), seen.loc.len());
        }
        if moving.len() > 1 {
            group.segments.want_all_of_most(group.visited, group.participants.len());
        }
        let hurried = group.hurried;
        let rest = |took| {
            if !hurried {
                self.rest_behind(took)
            }
        };
        group.segments.read_wanted(&*self.disk, Pace::GENTLE, rest);
        true
    }

    /// The entries to be moved, with checked payloads. Left out is what is gone from the index by now, or damaged, which is then recorded.
    pub(super) fn payloads<'g>(&self, moving: &Moving, group: &'g mut Group) -> Result<Vec<(Seen, Payload<'g>)>> {
        let head = self.head();
        let at_once = self.read_at_once(std::slice::from_ref(moving), group);
        let Group { segments, with_metadata, .. } = group;
        if !at_once {
            for seen in &moving.entries {
                segments.load(&*self.disk, seen.loc.lsn(head), seen.loc.len());
            }
        }
        let segments: &Segments = segments;
        let mut payloads = Vec::with_capacity(moving.entries.len());
        for &seen in &moving.entries {
            if let Some(payload) = self.payload(moving, seen, segments)? {
                payloads.push((seen, payload));
            }
        }
        if payloads.len() < moving.entries.len() {
            // Its CORE says what is damaged.
            with_metadata.push(moving.cell.id);
        }
        Ok(payloads)
    }

    fn payload<'g>(&self, moving: &Moving, seen: Seen, segments: &'g Segments) -> Result<Option<Payload<'g>>> {
        let id = EntryId { replica: moving.cell.id, index: seen.index, term: seen.term, len: seen.loc.len() };
        let stored = match segments.get(self.geo.seed, id, seen.loc.lsn(self.head())) {
            Stored::Good(bytes, crc) => return Ok(Some(Payload { from: Origin::Segments(bytes), crc })),
            // By itself, and not through the mapping: a page that cannot be read would end the process.
            Stored::Unread => self.read_unmapped(id, seen.loc).map_err(unreadable)?,
            Stored::Bad | Stored::Elsewhere => None,
        };
        if let Some(bytes) = stored {
            let crc = crc::of(&bytes);
            return Ok(Some(Payload { from: Origin::Elsewhere(bytes), crc }));
        }
        // Again from where readers read: a mismatch is called damage only if it persists.
        if let Some(bytes) = self.read_journal(id, seen.loc, self.view().as_deref()).map_err(unreadable)? {
            let crc = crc::of(&bytes);
            return Ok(Some(Payload { from: Origin::Elsewhere(bytes), crc }));
        }
        self.mark_damaged(moving, seen);
        Ok(None)
    }

    /// The entry cannot be read: it is recorded as damage, so that the cleaner goes on and nobody is given wrong bytes.
    fn mark_damaged(&self, moving: &Moving, seen: Seen) {
        let mut s = self.seq.lock();
        let mut state = moving.cell.lock();
        if state.incarnation != moving.incarnation || state.places.loc(seen.index) != Some(seen.loc) {
            return;
        }
        self.forget_damaged(&mut s, moving.cell.id, &mut state, seen.index);
        // The CORE is carried with the replica's metadata: it counts as lying in the oldest segment, so this cleaning writes it or, should
        // that fail, the next, which does not leave the replica out, because something of it was found.
        state.core_seq = s.segments.carry_with_oldest(moving.cell.id);
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io("reading the journal to clean it", error)
}
