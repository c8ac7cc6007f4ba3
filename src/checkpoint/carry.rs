//! Carrying: what is small goes to the journal's head as it is.

use super::gather::{Moving, Payload, Seen};
use super::group::Group;
use super::settle::encoded_bound;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::EntryId;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::record::{self, RunKind};
use crate::index::{Loc, ReplicaState, Value};
use crate::journal::{Class, Sequencer};
use crate::space::step;

/// A record of one entry, at its longest, without payload.
const RECORD_BYTES: u64 = 64;

/// What an entry takes beside its record.
fn bytes_of(payload: &Payload<'_>) -> u64 {
    (ENTRY_CRC_BYTES + payload.bytes().len()) as u64
}

impl Engine {
    /// Copies the entries to the open frame, clipped to what still lies where it was read. `false`: no room.
    pub(super) fn carry(&self, moving: &Moving, from: &mut Group) -> Result<bool> {
        // Copied under one hold of the sequencer lock: callers must not wait long.
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

    /// Writes anew every CORE, key and descriptor whose newest record lies in the group: generated from the index under the
    /// lock, never copied, so that an old value cannot overtake a new one. `false`: no room.
    pub(super) fn carry_metadata(&self, group: &Group) -> Result<bool> {
        for &id in &group.with_metadata {
            let Some(cell) = self.registry.get(id) else { continue };
            // It may have written it anew since.
            if !cell.lock().has_metadata_in(|seq| group.holds(seq)) {
                continue;
            }
            let mut s = self.seq.lock();
            if let Some(why) = &s.stopped {
                return Err(why.clone());
            }
            let mut state = cell.lock();
            let before = s.open.used();
            let (mut first, at) = (true, s.open.lsn);
            let mut room = |s: &mut Sequencer, table: u64| {
                let ok = s.make_room(0, table, Class::Clean, &self.segment_map);
                s.open.batches += u64::from(std::mem::take(&mut first) || s.open.batches == 0);
                ok
            };
            if !state.exists {
                continue;
            }
            if group.holds(state.core_seq) {
                if !room(&mut s, record::MOST_CORE_BYTES) {
                    return Ok(false);
                }
                let core = state.core();
                self.write_core(&mut s, id, &mut state, &core);
            }
            if !self.carry_keys(&mut s, id, &mut state, group, &mut room)
                || !self.carry_descriptors(&mut s, id, &mut state, group, &mut room)
            {
                return Ok(false);
            }
            if s.open.lsn == at {
                self.counters.carried_bytes.add(s.open.used().saturating_sub(before));
            }
            drop(state);
            self.submitted(&mut s, true, None, false);
        }
        Ok(true)
    }

    fn carry_keys(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        group: &Group,
        room: &mut impl FnMut(&mut Sequencer, u64) -> bool,
    ) -> bool {
        for i in 0..state.keys.len() {
            let Some(entry) = state.keys.at(i).filter(|e| group.holds(e.seq)) else { continue };
            let bytes = RECORD_BYTES
                + entry.key.len() as u64
                + match &entry.value {
                    Value::Inline(value) => value.len() as u64,
                    Value::Out(piece) => encoded_bound(&piece.desc),
                };
            if !room(s, bytes) {
                return false;
            }
            let record = Self::next_seq(s, id, state);
            let segment = s.segments.current();
            let Some(entry) = state.keys.at_mut(i) else { continue };
            match &entry.value {
                Value::Inline(value) => record::encode_put(&mut s.open.table, id, record, &entry.key, value),
                Value::Out(piece) => record::encode_kept_out(&mut s.open.table, id, record, &entry.key, &piece.desc),
            }
            entry.seq = segment;
        }
        true
    }

    fn carry_descriptors(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        group: &Group,
        room: &mut impl FnMut(&mut Sequencer, u64) -> bool,
    ) -> bool {
        let descs: Vec<_> = state
            .places
            .chain()
            .iter()
            .filter(|p| group.holds(p.meta_seq))
            .map(|p| {
                let mut desc = p.desc.clone();
                desc.terms = state.terms.runs(desc.first, desc.count);
                desc
            })
            .collect();
        let step = step(self.geo.segment_bytes);
        let mut rest = descs.as_slice();
        while !rest.is_empty() {
            let mut bytes = RECORD_BYTES;
            let fit = rest.iter().take_while(|desc| {
                bytes += encoded_bound(desc);
                bytes <= step
            });
            let (some, later) = rest.split_at(fit.count().max(1));
            rest = later;
            if !room(s, RECORD_BYTES + some.iter().map(encoded_bound).sum::<u64>()) {
                return false;
            }
            let record = Self::next_seq(s, id, state);
            record::encode_pieces(&mut s.open.table, RunKind::Carried, id, record, some);
            let segment = s.segments.current();
            for desc in some {
                if let Some(piece) = state.places.piece_mut(desc.id) {
                    piece.meta_seq = segment;
                }
            }
        }
        true
    }
}
