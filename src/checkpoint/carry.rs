//! Carrying: what is small is copied to the journal's head as it is.

use super::gather::Payload;
use super::group::Group;
use super::moving::{Moving, Seen};
use super::settle::{clip, encoded_bound};
use crate::engine::Engine;
use crate::error::Result;
use crate::format::EntryId;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::MAX_TERM_RUNS;
use crate::format::record::{self, RunKind};
use crate::index::{Cell, Loc, ReplicaState, Value};
use crate::journal::{Class, Sequencer};
use crate::space::step;

/// A record of one entry, at its longest, without payload.
const RECORD_BYTES: u64 = 64;

/// At most this many keys or pieces are looked at under one hold of the locks, in the group or not: some tens of microseconds.
const MOST_LOOKED_AT: usize = 4096;

/// What of a replica's metadata may be left in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    All,
    /// This many of the keys, and all descriptors.
    Keys(usize),
    /// The descriptors of pieces that begin at this index or later.
    Pieces(u64),
}

/// How far it was carried.
#[derive(Debug, PartialEq, Eq)]
enum Carried {
    /// What is left; `None`: nothing.
    UpTo(Option<Rest>),
    NoRoom,
}

/// What an entry takes beside its record.
fn bytes_of(payload: &Payload<'_>) -> u64 {
    (ENTRY_CRC_BYTES + payload.bytes().len()) as u64
}

impl Engine {
    /// Copies the entries to the open frame, clipped to what still lies where it was read. `false`: no room.
    pub(super) fn carry(&self, moving: &Moving, from: &mut Group) -> Result<bool> {
        // At most a step under one hold of the sequencer lock: callers must not wait long.
        let step = step(self.geo.segment_bytes);
        let payloads = self.payloads(moving, from)?;
        let mut rest = payloads.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|(_, payload)| {
                bytes += bytes_of(payload) + RECORD_BYTES;
                bytes <= step
            });
            let (batch, later) = rest.split_at(fit.count().max(1));
            if !self.carry_batch(moving, batch)? {
                return Ok(false);
            }
            rest = later;
        }
        Ok(true)
    }

    fn carry_batch(&self, moving: &Moving, batch: &[(Seen, Payload<'_>)]) -> Result<bool> {
        let payload: u64 = batch.iter().map(|(_, p)| bytes_of(p)).sum();
        let mut s = self.seq.lock();
        if let Some(why) = &s.stopped {
            return Err(why.clone());
        }
        if !s.make_room(payload, batch.len() as u64 * RECORD_BYTES, Class::Clean, &self.segment_map) {
            return Ok(false);
        }
        self.publish_head(&s);
        let mut state = moving.cell.lock();
        if !state.exists || state.incarnation != moving.incarnation {
            return Ok(true);
        }
        let alive: Vec<&(Seen, Payload<'_>)> =
            batch.iter().filter(|(e, _)| e.index >= state.first && state.places.loc(e.index) == Some(e.loc)).collect();
        for run in alive.chunk_by(|(a, _), (b, _)| a.index + 1 == b.index && a.term == b.term) {
            self.carry_run(&mut s, moving.cell.id, &mut state, run);
        }
        s.open.batches += u64::from(!alive.is_empty());
        self.recharge(&mut s, &mut state);
        drop(state);
        self.submitted(&mut s, true, None, false);
        Ok(true)
    }

    fn carry_run(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, run: &[&(Seen, Payload<'_>)]) {
        let Some((head, _)) = run.first() else { return };
        let seq = Self::next_seq(s, id, state);
        let lens = run.iter().map(|(_, p)| p.bytes().len() as u32);
        let place = (head.index, head.term);
        let before = s.open.used();
        record::encode_run(&mut s.open.table, RunKind::Carried, id, seq, place, lens);
        let locs: Vec<Loc> = run
            .iter()
            .map(|(seen, payload)| {
                let len = payload.bytes().len() as u32;
                let entry = EntryId { replica: id, index: seen.index, term: seen.term, len };
                let crc = self.geo.seed.entry_crc(payload.crc, s.open.here(), entry);
                Loc::new(s.open.push_entry(crc, payload.bytes()), len)
            })
            .collect();
        self.counters.carried_entries.add(run.len() as u64);
        self.counters.carried_bytes.add(s.open.used() - before);
        state.places.set_journal(head.index, locs.into_iter(), self.geo.chunk_bytes);
    }

    /// Rewrites every CORE, key and descriptor whose newest record lies in the group. They are generated from the index under the lock,
    /// never copied, so that an old value cannot overtake a new one. `false`: no room.
    pub(super) fn carry_metadata(&self, group: &Group) -> Result<bool> {
        for &id in &group.with_metadata {
            let Some(cell) = self.registry.get(id) else { continue };
            // A caller may have rewritten it since.
            if !cell.lock().has_metadata_in(|seq| group.holds(seq)) {
                continue;
            }
            let mut rest = Some(Rest::All);
            while let Some(from) = rest {
                match self.carry_some_metadata(&cell, group, from)? {
                    Carried::UpTo(left) => rest = left,
                    Carried::NoRoom => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Carries the CORE, if all is left; and some of the keys, or else of the descriptors. Under one hold of the locks: callers must not
    /// wait long. What callers change between two of these holds they write themselves, behind the group.
    fn carry_some_metadata(&self, cell: &Cell, group: &Group, from: Rest) -> Result<Carried> {
        let id = cell.id;
        let mut s = self.seq.lock();
        if let Some(why) = &s.stopped {
            return Err(why.clone());
        }
        let mut state = cell.lock();
        let before = s.open.used();
        let (mut first, at) = (true, s.open.lsn);
        let mut room = |s: &mut Sequencer, table: u64| {
            let ok = s.make_room(0, table, Class::Clean, &self.segment_map);
            // Nothing is put into a frame that may have no place.
            s.open.batches += u64::from(ok && (std::mem::take(&mut first) || s.open.batches == 0));
            ok
        };
        if !state.exists {
            return Ok(Carried::UpTo(None));
        }
        if from == Rest::All && group.holds(state.core_seq) {
            if !room(&mut s, record::MOST_CORE_BYTES) {
                return Ok(Carried::NoRoom);
            }
            let core = state.core();
            self.write_core(&mut s, id, &mut state, &core);
        }
        let (keys, index) = match from {
            Rest::All => (usize::MAX, 0),
            Rest::Keys(keys) => (keys, 0),
            Rest::Pieces(index) => (0, index),
        };
        let mut carried = self.carry_keys(&mut s, id, &mut state, group, keys, &mut room);
        if carried == Carried::UpTo(None) {
            carried = self.carry_descriptors(&mut s, id, &mut state, group, index, &mut room);
        }
        if matches!(carried, Carried::NoRoom) {
            return Ok(carried);
        }
        if s.open.lsn == at {
            self.counters.carried_bytes.add(s.open.used().saturating_sub(before));
        }
        drop(state);
        self.submitted(&mut s, true, None, false);
        Ok(carried)
    }

    /// Carries those of the first `keys` keys that lie in the group, as many as fit a step, and looks at no more than callers may wait for.
    /// **From the last one on**: if one is deleted meanwhile, one from behind it takes its place, and new ones come behind all.
    fn carry_keys(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        group: &Group,
        keys: usize,
        room: &mut impl FnMut(&mut Sequencer, u64) -> bool,
    ) -> Carried {
        let most = step(self.geo.segment_bytes);
        let mut carried = 0;
        for (looked, i) in (0..keys.min(state.keys.len())).rev().enumerate() {
            if looked == MOST_LOOKED_AT {
                return Carried::UpTo(Some(Rest::Keys(i + 1)));
            }
            let Some(entry) = state.keys.at(i).filter(|e| group.holds(e.seq)) else { continue };
            let bytes = RECORD_BYTES
                + entry.key.len() as u64
                + match &entry.value {
                    Value::Inline(value) => value.len() as u64,
                    Value::Out(piece) => encoded_bound(&piece.desc),
                };
            if carried > 0 && carried + bytes > most {
                return Carried::UpTo(Some(Rest::Keys(i + 1)));
            }
            if !room(s, bytes) {
                return Carried::NoRoom;
            }
            carried += bytes;
            let record = Self::next_seq(s, id, state);
            let segment = s.segments.current();
            let Some(entry) = state.keys.at(i) else { continue };
            match &entry.value {
                Value::Inline(value) => record::encode_put(&mut s.open.table, id, record, &entry.key, value),
                Value::Out(piece) => record::encode_kept_out(&mut s.open.table, id, record, &entry.key, &piece.desc),
            }
            state.keys.written_in(i, segment);
        }
        Carried::UpTo(None)
    }

    /// Carries the descriptors in the group of pieces that begin at index `from` or later, as many as fit a step; it looks at no more than
    /// callers may wait for.
    fn carry_descriptors(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        group: &Group,
        from: u64,
        room: &mut impl FnMut(&mut Sequencer, u64) -> bool,
    ) -> Carried {
        let most = step(self.geo.segment_bytes);
        let (mut bytes, mut descs, mut rest) = (RECORD_BYTES, Vec::new(), None);
        for (looked, piece) in state.places.pieces_from(from).enumerate() {
            if looked == MOST_LOOKED_AT {
                rest = Some(Rest::Pieces(piece.desc.first));
                break;
            }
            if !group.holds(piece.meta_seq) {
                continue;
            }
            let mut desc = piece.desc.clone();
            desc.terms = state.terms.runs(desc.first, desc.count);
            if desc.terms.len() > MAX_TERM_RUNS {
                // No piece is made of so many terms. No opening would read its record, nor any other of the log; what is not named is
                // damage there.
                let first = desc.first;
                self.events.say_later(
                    move || tracing::error!(target: "strandlog", replica = id, first, "a piece has too many terms"),
                );
                let named: u32 = desc.terms.iter().take(MAX_TERM_RUNS).map(|&(n, _)| n).sum();
                desc = clip(desc, named as usize);
            }
            let with = bytes + encoded_bound(&desc);
            if with > most && !descs.is_empty() {
                rest = Some(Rest::Pieces(desc.first));
                break;
            }
            bytes = with;
            descs.push(desc);
        }
        let Some(last) = descs.last().map(|desc| desc.first) else { return Carried::UpTo(rest) };
        if !room(s, bytes) {
            return Carried::NoRoom;
        }
        let record = Self::next_seq(s, id, state);
        record::encode_pieces(&mut s.open.table, RunKind::Carried, id, record, &descs);
        let segment = s.segments.current();
        let carried = state.places.pieces_from_mut(from).take_while(|p| p.desc.first <= last);
        for piece in carried.filter(|p| group.holds(p.meta_seq)) {
            piece.meta_seq = segment;
        }
        Carried::UpTo(rest)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "carry_tests.rs"]
mod tests;
