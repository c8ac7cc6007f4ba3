//! Applying: an admitted batch becomes records in the open frame and changes of the index, under the sequencer lock.
//!
//! The order in which this happens is the order of the log.

use super::Engine;
use super::admit::Admission;
use super::plan::Plan;
use super::touched::{InChunks, Touched, demand};
use crate::batch::Batch;
use crate::chain::Packed;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::{Extent, PieceDesc};
use crate::format::record::{self, Core, RunKind};
use crate::format::{EntryId, SPREAD};
use crate::index::{Cell, ChainPiece, Loc, Places, Ranges, ReplicaState};
use crate::journal::{Placed, Sequencer};
use crate::operation::What;
use crate::sync::{Arc, Ordering};

impl Engine {
    /// Applies the batch. Cannot fail: everything was checked under the same lock.
    pub(super) fn apply(&self, s: &mut Sequencer, batch: &Batch, plan: &Plan, adm: &Admission) {
        let mut freed = Vec::new();
        let mut shrunk = false;
        self.publish_head(s);
        let mut payload_at = s.open.here();
        self.copy_payloads(s, batch, plan, adm);
        let mut ops = batch.ops.iter().enumerate().peekable();
        while let Some(&(i, _)) = ops.peek() {
            let Some(slot) = adm.slot(i) else { break };
            let (Some(cell), Some(t)) = (adm.cells.get(slot), adm.touched.get(slot)) else { break };
            let mut state = cell.lock();
            if let Some(anew) = t.anew.filter(|_| state.state_suspect) {
                self.reset(s, cell.id, &mut state, anew.index, anew.term, &mut freed);
            }
            while let Some((i, op)) = ops.next_if(|&(i, _)| adm.slot(i) == Some(slot)) {
                if t.anew.is_some_and(|anew| anew.leaves_out(i, op.what)) {
                    continue;
                }
                let what = t.anew.map_or(op.what, |anew| anew.taken(i, op.what));
                let existed = state.exists;
                self.apply_op(s, batch, plan.pieces_of(i), what, &mut payload_at, cell, &mut state, &mut freed);
                if t.reports_unborn && !existed && state.exists {
                    self.apply_report(s, cell, &mut state, 0, &mut freed);
                }
            }
            if adm.grouped {
                shrunk |= self.recharge_as_admitted(s, &mut state, t);
            }
        }
        debug_assert_eq!(payload_at, s.open.here(), "the index and the frame disagree where payloads lie");
        if !adm.grouped {
            // In the order in which admission priced them, and only as they stand in the end.
            for (cell, t) in adm.cells.iter().zip(&adm.touched) {
                shrunk |= self.recharge_as_admitted(s, &mut cell.lock(), t);
            }
        }
        if shrunk {
            let in_chunks = adm.cells.iter().zip(&adm.touched).filter(|(_, t)| t.is_in_chunks());
            in_chunks.for_each(|(cell, _)| self.recharge(s, &mut cell.lock()));
        }
        s.open.batches += 1;
        s.open.user_batches += 1;
        s.open.entries += plan.entries;
        s.open.user_bytes += plan.user_bytes;
        self.unlink(s, freed);
    }

    /// Copies what goes inline into the open frame, in the order in which the records will name it.
    ///
    /// Not entry by entry along with the index: the frame's memory has mostly left the cache, and each locking and unlocking of a cell
    /// would wait until what was stored before it has arrived there.
    fn copy_payloads(&self, s: &mut Sequencer, batch: &Batch, plan: &Plan, adm: &Admission) {
        let (seed, open) = (self.geo.seed, &mut s.open);
        open.buf.reserve(plan.payload as usize);
        for (i, op) in batch.ops.iter().enumerate() {
            let What::Append { first, from, to } = op.what else { continue };
            if plan.pieces_of(i).is_some() || adm.leaves_out(i, op.what) {
                continue;
            }
            for (i, meta) in batch.metas.get(from..to).unwrap_or(&[]).iter().enumerate() {
                // The last index does not overflow: the batch checked that.
                let entry = EntryId { replica: op.replica, index: first + i as u64, term: meta.term, len: meta.len };
                let crc = seed.entry_crc(meta.payload_crc, open.here(), entry);
                open.push_entry(crc, batch.payload(meta));
            }
        }
    }

    /// Must come before any location is published that needs the head to be unpacked.
    pub(crate) fn publish_head(&self, s: &Sequencer) {
        self.head.store(s.lsn_bound(), Ordering::Release);
    }

    /// Queues the space of unlinked pieces: free once what unlinked them is durable.
    pub(crate) fn unlink(&self, s: &Sequencer, freed: Vec<Extent>) {
        if !freed.is_empty() {
            self.pool.lock().unlink(s.open.here(), freed);
        }
    }

    /// Brings the accounts up to where the replica stands. **A replica that holds no chunks is promised none by this**: nobody was asked
    /// for them.
    pub(crate) fn recharge(&self, s: &mut Sequencer, state: &mut ReplicaState) {
        let new = s.price_unasked(state.charge, demand(state));
        s.accounts.settle(&mut state.charge, new);
    }

    /// Brings the accounts up to where the replica stands. One that was admitted with chunks keeps them until all replicas of the batch
    /// have what they were admitted with: another may count on the room in which this one would be carried. One that was admitted as
    /// carried is carried, though it held chunks. Returns whether one admitted with chunks is small now.
    fn recharge_as_admitted(&self, s: &mut Sequencer, state: &mut ReplicaState, t: &Touched) -> bool {
        if t.admitted.is_none() && state.is_charged_as_carried() {
            // Mostly a hard state took the place of another: that is found without pricing it anew.
            debug_assert_eq!(
                s.price_unasked(state.charge, demand(state)),
                state.charge,
                "it would be priced otherwise"
            );
            return false;
        }
        let demand = demand(state);
        let now = match t.admitted {
            Some(InChunks::Yes) => s.accounts.price_in_chunks(demand),
            Some(InChunks::No) => s.accounts.price_carried(demand),
            None => s.price_unasked(state.charge, demand),
        };
        s.accounts.settle(&mut state.charge, now);
        t.is_in_chunks() && s.accounts.is_small(demand)
    }

    /// Lists the replica as a participant of the open frame and of its segment, and counts its record.
    pub(crate) fn next_seq(s: &mut Sequencer, id: u64, state: &mut ReplicaState) -> u16 {
        if state.listed_frame != s.open.lsn {
            if state.listed_frame < s.segment_start() {
                s.segments.list(id);
            }
            state.listed_frame = s.open.lsn;
            s.open.participants.push(id);
        }
        let seq = state.seq;
        state.seq = seq.wrapping_add(1);
        seq
    }

    #[allow(clippy::too_many_arguments)]
    fn apply_op(
        &self,
        s: &mut Sequencer,
        batch: &Batch,
        pieces: Option<&[Packed]>,
        what: What,
        payload_at: &mut u64,
        cell: &Arc<Cell>,
        state: &mut ReplicaState,
        freed: &mut Vec<Extent>,
    ) {
        let id = cell.id;
        match what {
            What::Append { first, from, to } => {
                self.create(s, id, state, 1, 0);
                self.cut(state, first, freed);
                match pieces {
                    Some(pieces) => self.place(s, id, state, pieces),
                    None => self.append_inline(s, batch, payload_at, id, state, first, from, to),
                }
                state.last = first + ((to - from) as u64 - 1);
            }
            What::Put { key, value } => {
                self.create(s, id, state, 1, 0);
                let key = batch.bytes_of(key);
                let seq = Self::next_seq(s, id, state);
                let segment = s.segments.current();
                match pieces.and_then(<[_]>::first) {
                    Some(piece) => {
                        let mut tail = None;
                        let Some(desc) = self.link(s, id, &mut tail, piece) else { return };
                        record::encode_put_out(&mut s.open.table, id, seq, key, &desc);
                        let piece = ChainPiece { desc, meta_seq: segment, mem: Some(Arc::clone(&piece.buf)) };
                        state.keys.put_out(key, piece, segment, freed);
                    }
                    None => {
                        let value = batch.bytes_of(value);
                        record::encode_put(&mut s.open.table, id, seq, key, value);
                        state.keys.put(key, value, segment, freed);
                    }
                }
            }
            What::Delete { key } => {
                let key = batch.bytes_of(key);
                if state.exists && state.keys.get(key).is_some() {
                    let seq = Self::next_seq(s, id, state);
                    record::encode_delete(&mut s.open.table, id, seq, key);
                    state.keys.delete(key, freed);
                }
            }
            What::Truncate { first } => {
                let first = self.hold_back(id, state, first);
                self.truncate(s, id, state, first, freed);
            }
            What::Cut { from } => {
                if state.exists && from <= state.last {
                    let seq = Self::next_seq(s, id, state);
                    record::encode_cut(&mut s.open.table, id, seq, from);
                    self.cut(state, from, freed);
                    // Admission saw that `from` is at or above the first index, which is never 0.
                    state.last = from - 1;
                }
            }
            // A late one, of a life that is gone.
            What::Applied { life: Some(life), .. } if !state.is_in(life) => {}
            What::Applied { index, .. } => self.apply_report(s, cell, state, index, freed),
            What::Reset { index, term } => self.reset(s, id, state, index, term, freed),
            What::Remove => self.remove(s, id, state, freed),
        }
    }

    /// Drops the entries from `from` on, whether others take their place or not.
    fn cut(&self, state: &mut ReplicaState, from: u64, freed: &mut Vec<Extent>) {
        // Mostly entries follow the last one: then there is nothing to drop.
        if from <= state.last {
            let chunk = self.geo.chunk_bytes;
            state.places.cut_from(from, chunk, freed);
            // A cut may leave a piece with nothing but entries that were truncated before.
            state.places.drop_below(state.first, chunk, freed);
            state.terms.cut_from(from);
            note_cut(state, from);
        }
        state.cut_damage(from);
    }

    fn remove(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, freed: &mut Vec<Extent>) {
        // A truncation that waits for a report of this life would wait for ever.
        self.held.forget(id);
        if !state.exists {
            return;
        }
        let seq = Self::next_seq(s, id, state);
        record::encode_remove(&mut s.open.table, id, seq);
        state.places.clear(freed);
        state.keys.clear(freed);
        let (charge, pledge, listed_frame) = (state.charge, state.pledge.take(), state.listed_frame);
        let cuts = state.cuts.wrapping_add(1);
        *state = ReplicaState { charge, pledge, listed_frame, cuts, ..ReplicaState::default() };
        s.replicas = s.replicas.saturating_sub(1);
    }

    /// Begins a life, if the replica has none: a fresh CORE, whose sequence begins at a number of this life: see [`first_seq`].
    #[inline]
    fn create(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, first: u64, prev_term: u64) {
        if !state.exists {
            self.begin_life(s, id, state, first, prev_term);
        }
    }

    #[cold]
    fn begin_life(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, first: u64, prev_term: u64) {
        s.replicas += 1;
        state.exists = true;
        state.incarnation = self.next_id();
        state.seq = first_seq(state.incarnation);
        (state.first, state.last, state.prev_term) = (first, first - 1, prev_term);
        let core = Core { fresh: true, ..state.core() };
        self.write_core(s, id, state, &core);
    }

    /// Writes a CORE and remembers the segment that now holds it.
    pub(crate) fn write_core(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, core: &Core) {
        let seq = Self::next_seq(s, id, state);
        record::encode_core(&mut s.open.table, id, seq, core);
        state.core_seq = s.segments.current();
    }

    #[allow(clippy::too_many_arguments)]
    fn append_inline(
        &self,
        s: &mut Sequencer,
        batch: &Batch,
        payload_at: &mut u64,
        id: u64,
        state: &mut ReplicaState,
        first: u64,
        from: usize,
        to: usize,
    ) {
        let mut metas = batch.metas.get(from..to).unwrap_or(&[]);
        let mut index = first;
        let lies = |p: &Places| (p.weight(), p.journal_bytes(), p.spans().len() as u64);
        let (before, mut runs) = (state.pledge.is_some().then(|| lies(&state.places)), 0);
        while let Some(head) = metas.first() {
            let n = metas.iter().take_while(|m| m.term == head.term).count();
            let (run, rest) = metas.split_at(n);
            let seq = Self::next_seq(s, id, state);
            record::encode_run(
                &mut s.open.table,
                RunKind::Append,
                id,
                seq,
                (index, head.term),
                run.iter().map(|m| m.len),
            );
            let locs = run.iter().map(|m| {
                let at = *payload_at;
                *payload_at += ENTRY_CRC_BYTES as u64 + u64::from(m.len);
                Loc::new(at, m.len)
            });
            state.places.push_newest(index, locs, self.geo.chunk_bytes);
            state.terms.push(index, head.term);
            // The last index does not overflow: the batch checked that. One beyond it is not used.
            index = index.wrapping_add(n as u64);
            metas = rest;
            runs += 1;
        }
        if let (Some(pledge), Some(before)) = (state.pledge.as_mut(), before) {
            let (now, fresh) = (lies(&state.places), &mut pledge.fresh);
            fresh.weight += now.0 - before.0;
            fresh.journal_bytes += now.1 - before.1;
            fresh.spans += now.2 - before.2;
            fresh.term_runs += runs;
        }
    }

    /// Gives a packed piece its place in the pool and queues its bytes beside the open frame.
    fn link(
        &self,
        s: &mut Sequencer,
        id: u64,
        tail: &mut Option<crate::space::Tail>,
        piece: &Packed,
    ) -> Option<PieceDesc> {
        // Admission saw enough free chunks under this very lock; a pool that lies is a bug, not a reason to panic.
        let extents = self.pool.lock().allocate(piece.blocks(), tail)?;
        let desc = piece.at(extents.clone());
        s.open.placed_bytes += piece.buf.len() as u64;
        s.open.placed.push(Placed {
            replica: id,
            piece: desc.id,
            first: desc.first,
            extents,
            buf: Arc::clone(&piece.buf),
        });
        Some(desc)
    }

    fn place(&self, s: &mut Sequencer, id: u64, state: &mut ReplicaState, pieces: &[Packed]) {
        let mut tail = state.places.tail();
        let descs: Vec<_> = pieces.iter().filter_map(|p| self.link(s, id, &mut tail, p)).collect();
        state.places.set_tail(tail);
        let seq = Self::next_seq(s, id, state);
        record::encode_pieces(&mut s.open.table, RunKind::Append, id, seq, &descs);
        let meta_seq = s.segments.current();
        for (mut desc, packed) in descs.into_iter().zip(pieces) {
            let mut index = desc.first;
            if let Some(pledge) = state.pledge.as_mut() {
                pledge.fresh.term_runs += desc.terms.len() as u64;
            }
            for (n, term) in std::mem::take(&mut desc.terms) {
                state.terms.push(index, term);
                index = index.wrapping_add(n.into());
            }
            let piece = ChainPiece { desc, meta_seq, mem: Some(Arc::clone(&packed.buf)) };
            state.places.set_chain(piece, self.geo.chunk_bytes);
        }
    }

    pub(crate) fn truncate(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        first: u64,
        freed: &mut Vec<Extent>,
    ) {
        if !state.exists || first <= state.first {
            return;
        }
        let prev_term = state.term(first - 1);
        let seq = Self::next_seq(s, id, state);
        record::encode_truncate(&mut s.open.table, id, seq, first, prev_term);
        state.places.drop_below(first, self.geo.chunk_bytes, freed);
        state.terms.drop_below(first);
        state.first = first;
        // A wrong term would be worse than none: a follower with an overwritten entry of that term would accept what comes behind it.
        match prev_term {
            Some(term) => state.prev_term = term,
            None => state.forget_prev_term(),
        }
        state.clip_damage();
    }

    fn reset(
        &self,
        s: &mut Sequencer,
        id: u64,
        state: &mut ReplicaState,
        index: u64,
        term: u64,
        freed: &mut Vec<Extent>,
    ) {
        if !state.exists {
            self.create(s, id, state, index + 1, term);
            return;
        }
        if state.state_suspect {
            // State that may miss an update is never believed again: a new life begins, and what the caller puts into it is believed.
            self.remove(s, id, state, freed);
            self.create(s, id, state, index + 1, term);
            return;
        }
        let seq = Self::next_seq(s, id, state);
        record::encode_reset(&mut s.open.table, id, seq, index + 1, term);
        state.places.clear(freed);
        state.terms.clear();
        state.damaged = Ranges::default();
        note_cut(state, 0);
        (state.first, state.last, state.prev_term) = (index + 1, index, term);
        self.take_back_report(s, id, state, index, freed);
    }
}

/// The number of a life's first record: lives that follow each other begin far apart. Did they not, and all between were lost, the next
/// record of this life could have the very number expected of the last life's next record.
fn first_seq(incarnation: u64) -> u16 {
    (incarnation.wrapping_mul(SPREAD) >> 48) as u16
}

/// Notes a cut: a cleaner about to settle what the replica had must not take what comes in its place for that, nor a reader for what
/// follows what it has read.
fn note_cut(state: &mut ReplicaState, from: u64) {
    state.cuts = state.cuts.wrapping_add(1);
    if let Some(pledge) = &mut state.pledge {
        pledge.cut = pledge.cut.min(from);
    }
}
