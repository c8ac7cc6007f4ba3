//! Settling: a replica's journal-resident entries become pieces of its chain.

use std::iter::once;
// Not of `crate::sync`: in a model there is no second thread here.
use std::sync::mpsc;
use std::time::Instant;

use smallvec::SmallVec;

use super::group::Group;
use super::moving::{Moving, Seen};
use crate::caught::by_disk;
use crate::chain::{PackEntry, pack_next};
use crate::disk::{AlignedBuf, Writer};
use crate::engine::{Engine, parts};
use crate::error::Result;
use crate::format::BLOCK_BYTES;
use crate::format::piece::{Extents, PieceDesc, TermRuns};
use crate::format::record::{self, RunKind};
use crate::format::varint;
use crate::index::{ChainPiece, ReplicaState};
use crate::journal::Class;
use crate::space::{Tail, step};
use crate::sync::{Arc, Mutex, helped};

/// Fewer entries are packed and written by the cleaner alone.
const WORTH_A_WRITER: usize = 1000;

/// Pieces written together in a hurry; and otherwise, when commits should not find many of them in front of theirs at the device.
const AT_ONCE: usize = 8;
const GENTLY: usize = 2;

/// A piece that is to be written, and its place.
type PackedAt = (Extents, Arc<AlignedBuf>);

/// A piece that is written, or about to be, and not linked yet.
struct Placed {
    desc: PieceDesc,
    /// What its entries were when they were read.
    seen: Vec<Seen>,
}

impl Engine {
    /// Settles these entries: pack, write, **flush**, and only then say so in the journal.
    pub(super) fn settle(&self, group: Vec<Moving>, from: &mut Group) -> Result<bool> {
        self.read_at_once(&group, from);
        let mut placed: Vec<(Moving, Vec<Placed>)> = Vec::new();
        let mut short = false;
        // One flush after all of them: a move record must never be durable before the pieces it names.
        let flush = || self.flush(Some(Writer::Pieces)).map_err(|e| self.failed("flushing settled pieces", &e));
        if let Err(error) = self.pack_and_write(group, from, &mut placed, &mut short).and_then(|()| flush()) {
            placed.iter().for_each(|(moving, pieces)| self.withdraw(moving, pieces));
            return Err(error);
        }
        // All of them, even if there is no room for one, or the log has ended: what is not linked gives its space back.
        let linked = placed.into_iter().map(|(moving, pieces)| self.link_settled(&moving, pieces));
        let all = linked.reduce(|before, this| before.and_then(|all| this.map(|room| all && room)));
        Ok(all.transpose()?.unwrap_or(true) && !short)
    }

    /// Gives up pieces that nobody will link: their space is given back, and the pledge ends, **in one step**: in between the space would
    /// be anybody's.
    fn withdraw(&self, moving: &Moving, pieces: &[Placed]) {
        let mut s = self.seq.lock();
        let mut state = moving.cell.lock();
        {
            let mut pool = self.pool.lock();
            pieces.iter().for_each(|piece| pool.give_back(&piece.desc.extents, &self.pins));
        }
        self.redeem(&mut s, &mut state);
    }

    /// Packs the entries and writes the pieces, not yet durably. In a hurry both at once: while some are written, the next are packed.
    /// Otherwise in turns, so that neither a processor is taken for long, nor much lies in front of a commit at the device.
    fn pack_and_write(
        &self,
        group: Vec<Moving>,
        from: &mut Group,
        placed: &mut Vec<(Moving, Vec<Placed>)>,
        short: &mut bool,
    ) -> Result<()> {
        let failed = |e| self.failed("writing a settled piece", &e);
        if !from.hurried {
            let (mut waiting, mut written): (SmallVec<[PackedAt; GENTLY]>, _) = (SmallVec::new(), Ok(()));
            for moving in group {
                let pieces = self.place_pieces(&moving, from, short, &mut |piece| {
                    waiting.push(piece);
                    if waiting.len() == GENTLY && written.is_ok() {
                        let began = Instant::now();
                        written = self.write_pieces(&std::mem::take(&mut waiting));
                        self.rest_behind(began.elapsed());
                    }
                })?;
                placed.push((moving, pieces));
                std::mem::replace(&mut written, Ok(())).map_err(failed)?;
            }
            return self.write_pieces(&waiting).map_err(failed);
        }
        let entries: usize = group.iter().map(|moving| moving.entries.len()).sum();
        let (queue, packed) = mpsc::channel::<PackedAt>();
        let packed = Mutex::new(packed);
        let write = || -> std::io::Result<()> {
            loop {
                let some: SmallVec<[_; AT_ONCE]> = {
                    let packed = packed.lock();
                    // The queue is empty, and closed.
                    let Ok(first) = packed.recv() else { return Ok(()) };
                    once(first).chain(packed.try_iter()).take(AT_ONCE).collect()
                };
                self.write_pieces(&some)?;
            }
        };
        let writers = usize::from(self.run.background && entries >= WORTH_A_WRITER);
        let written = helped(writers, write, || {
            let all = group.into_iter().try_for_each(|moving| {
                // The receiver lives as long as this closure.
                let pieces = self.place_pieces(&moving, from, short, &mut |piece| {
                    let _ = queue.send(piece);
                })?;
                placed.push((moving, pieces));
                Ok(())
            });
            drop(queue);
            write().map(|()| all)
        });
        written.map_err(failed)?
    }

    fn write_pieces(&self, pieces: &[PackedAt]) -> std::io::Result<()> {
        let writes: SmallVec<[_; AT_ONCE]> =
            pieces.iter().flat_map(|(extents, buf)| parts(extents, buf.as_slice())).collect();
        if writes.is_empty() {
            return Ok(());
        }
        by_disk(|| self.disk.write_many(&writes))?;
        self.counters.settled_bytes.add(pieces.iter().map(|(_, buf)| buf.len() as u64).sum());
        Ok(())
    }

    /// Packs the replica's entries, finds a place for each piece, and has it written.
    fn place_pieces(
        &self,
        moving: &Moving,
        from: &mut Group,
        short: &mut bool,
        write: &mut impl FnMut(PackedAt),
    ) -> Result<Vec<Placed>> {
        let elsewhere = moving.entries.iter().filter(|seen| !from.holds_entry(seen.loc));
        self.prefetch(elsewhere.map(|seen| seen.loc));
        let payloads = self.payloads(moving, from)?;
        let (mut placed, mut tail) = (Vec::new(), moving.tail);
        for run in payloads.chunk_by(|(a, _), (b, _)| a.index.checked_add(1) == Some(b.index)) {
            let entries: Vec<_> = run
                .iter()
                .map(|(seen, p)| PackEntry { term: seen.term, payload: p.bytes(), payload_crc: p.crc, bulk: None })
                .collect();
            let (mut rest, mut entries) = (run, entries.as_slice());
            while let Some((first, _)) = rest.first() {
                let room = u64::from(self.pool.lock().behind(tail)) * BLOCK_BYTES;
                let place = (self.geo.chunk_bytes, room);
                let packed =
                    pack_next(self.geo.seed, moving.cell.id, first.index, entries, place, &mut || self.next_id());
                let n = packed.desc.count as usize;
                let (mine, later) = rest.split_at(rest.len().min(n));
                (rest, entries) = (later, entries.get(n..).unwrap_or(&[]));
                let Some(extents) = self.take_pledged(moving, packed.blocks(), &mut tail) else {
                    *short = true;
                    continue;
                };
                let seen = mine.iter().map(|&(seen, _)| seen).collect();
                let desc = packed.at(extents.clone());
                placed.push(Placed { desc, seen });
                write((extents, packed.buf));
            }
        }
        let mut state = moving.cell.lock();
        // If something was appended to the chain meanwhile, it began a chunk of its own: the chain goes on there.
        if state.incarnation == moving.incarnation && state.places.tail().is_none() {
            state.places.set_tail(tail);
        }
        drop(state);
        Ok(placed)
    }

    /// Links the pieces, and gives back what was pledged and not taken. `false`: for some there was no room for a record.
    fn link_settled(&self, moving: &Moving, pieces: Vec<Placed>) -> Result<bool> {
        // All their descriptors at once need not fit a segment: then no cleaning of them would ever end.
        let most = step(self.geo.segment_bytes);
        let mut pieces = pieces;
        loop {
            let mut bytes = 0;
            let fit = pieces.iter().take_while(|piece| {
                bytes += encoded_bound(&piece.desc);
                bytes <= most
            });
            let mut rest = pieces.split_off(fit.count().max(1).min(pieces.len()));
            let room = self.link_some(moving, pieces, &mut rest)?;
            if rest.is_empty() {
                return Ok(room);
            }
            pieces = rest;
        }
    }

    /// Links the pieces whose entries still stand as they were read, and gives back the space of the others; after the last of them it ends
    /// the pledge. If there is no room, or the log has ended, it gives back the space of all of them, and of the rest.
    fn link_some(&self, moving: &Moving, mut pieces: Vec<Placed>, rest: &mut Vec<Placed>) -> Result<bool> {
        let table: u64 = 64 + pieces.iter().map(|w| encoded_bound(&w.desc)).sum::<u64>();
        let mut s = self.seq.lock();
        let stopped = s.stopped.clone();
        let room = stopped.is_none() && s.make_room(0, table, Class::Clean, &self.segment_map);
        if !room {
            pieces.append(rest);
        }
        let mut state = moving.cell.lock();
        let alive = room && state.exists && state.incarnation == moving.incarnation;
        let (id, meta_seq) = (moving.cell.id, s.segments.current());
        let mut linked = Vec::new();
        for piece in pieces {
            let n = if alive { still_standing(&state, &piece.seen) } else { 0 };
            let desc = clip(piece.desc, n);
            let bare = PieceDesc { terms: TermRuns::new(), ..desc.clone() };
            let piece = ChainPiece { desc: bare, meta_seq, mem: None };
            // Linked before it is named: a piece that overlaps another must not be named, and its space may be given back only if no record
            // names it.
            if n == 0 || !state.places.set_chain(piece, self.geo.chunk_bytes) {
                self.pool.lock().give_back(&desc.extents, &self.pins);
                continue;
            }
            self.counters.settled_entries.add(u64::from(desc.count));
            if let Some(pledge) = state.pledge.as_mut() {
                // From now on its descriptor is charged with the chain.
                pledge.held.pieces = pledge.held.pieces.saturating_sub(1);
            }
            linked.push(desc);
        }
        if !linked.is_empty() {
            let seq = Self::next_seq(&mut s, id, &mut state);
            record::encode_pieces(&mut s.open.table, RunKind::Carried, id, seq, &linked);
            s.open.batches += 1;
        }
        if rest.is_empty() {
            self.redeem(&mut s, &mut state);
        }
        drop(state);
        if let Some(why) = stopped {
            return Err(why);
        }
        self.submitted(&mut s, true, None, false);
        Ok(room)
    }

    /// Takes room for a piece, behind the previous one if it fits there. What it takes is no longer reserved, **in one step**, so that a
    /// caller meanwhile finds neither too much nor too little.
    pub(super) fn take_pledged(&self, moving: &Moving, blocks: u32, tail: &mut Option<Tail>) -> Option<Extents> {
        let mut s = self.seq.lock();
        let mut state = moving.cell.lock();
        let (extents, taken) = {
            let mut pool = self.pool.lock();
            let before = pool.free();
            (pool.allocate(blocks, tail)?, before - pool.free())
        };
        if let Some(pledge) = state.pledge.as_mut().filter(|_| taken > 0) {
            pledge.held.chunks = pledge.held.chunks.saturating_sub(taken);
            self.recharge(&mut s, &mut state);
        }
        Some(extents)
    }
}

/// How many of the piece's entries, from the first on, are dead by truncation or still lie where they were read; 0 if none of them is
/// alive. One found damaged meanwhile counts as standing, wherever it lies: **those behind it still stand**. Not so from the index on where
/// something was cut since they were read: there the damage is that of a newer entry.
fn still_standing(state: &ReplicaState, seen: &[Seen]) -> usize {
    let cut = state.pledge.as_ref().map_or(0, |pledge| pledge.cut);
    let lost = |e: &Seen| e.index < cut && state.damage_at(e.index).is_some();
    let stands = |e: &&Seen| e.index < state.first || state.places.loc(e.index) == Some(e.loc) || lost(e);
    let n = seen.iter().take_while(stands).count();
    let any_alive = seen.iter().take(n).any(|e| e.index >= state.first);
    if any_alive { n } else { 0 }
}

/// The descriptor of the piece's first `n` entries.
pub(super) fn clip(mut desc: PieceDesc, n: usize) -> PieceDesc {
    let mut left = n as u32;
    desc.terms.retain_mut(|(count, _)| {
        *count = (*count).min(left);
        left -= *count;
        *count > 0
    });
    desc.count = n as u32;
    desc
}

/// The most bytes that a descriptor takes in a table.
pub(super) fn encoded_bound(desc: &PieceDesc) -> u64 {
    let varints = 5 + 1 + 2 * desc.terms.len();
    // As when an append of it was admitted: what was accepted can be carried.
    12 + (varints * varint::MAX_BYTES) as u64 + desc.extents.len() as u64 * PieceDesc::EXTENT_BYTES
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "settle_tests.rs"]
mod tests;
