//! Admission: whether a batch makes sense where the replicas stand, and whether there is room. Changes nothing.

use super::Engine;
use super::anew::Anew;
use super::plan::Plan;
use super::relief::Lack;
use super::touched::{InChunks, Touched};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::record::CORE_BYTES;
use crate::index::{
    APPLIED_BYTES, APPLIED_KEY, Cell, Cells, IdMap, Registry, Value, journal_bytes, value_cost, weight,
};
use crate::journal::Class;
use crate::operation::What;
use crate::space::{Accounts, Demand};
use crate::sync::Arc;

/// The replicas of one batch. A thread uses it again and again, so that steady use allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Their cells, each once, in the order in which the batch names them first.
    pub cells: Vec<Arc<Cell>>,
    /// What the batch makes of them, in the same order, once it was [validated](Engine::validate).
    pub touched: Vec<Touched>,
    /// Where each operation's replica stands in both.
    slots: Vec<usize>,
    ids: Ids,
    /// Memory for finding the cells of many.
    search: Cells,
    /// Whether the operations on each replica are neighbours.
    pub grouped: bool,
    /// Chunks that direct appends need.
    append_chunks: u64,
    /// Chunks that large values need.
    value_chunks: u64,
    pub class: Class,
    /// Whether one of the replicas begins [anew](Anew).
    anew: bool,
}

/// Replicas, each once, in the order in which a batch names them first.
#[derive(Debug, Default)]
struct Ids {
    all: Vec<u64>,
    highest: u64,
    /// Where a prefix of `all` stands: it is filled when an id is looked up that may be among them. A batch that names its replicas in
    /// ascending order never does that.
    by_id: IdMap<usize>,
}

/// Up to this many replicas are searched, more are hashed.
const FEW: usize = 8;

impl Ids {
    /// Where it stands among them, if it does.
    fn position(&mut self, id: u64) -> Option<usize> {
        if id > self.highest {
            return None;
        }
        if self.all.len() <= FEW {
            return self.all.iter().position(|&known| known == id);
        }
        let hashed = self.by_id.len();
        self.by_id.extend(self.all.iter().enumerate().skip(hashed).map(|(slot, &id)| (id, slot)));
        self.by_id.get(&id).copied()
    }

    /// Adds one that is not among them.
    fn push(&mut self, id: u64) {
        self.highest = self.highest.max(id);
        self.all.push(id);
    }

    fn clear(&mut self) {
        self.all.clear();
        self.by_id.clear();
        self.highest = 0;
    }
}

impl Admission {
    /// Finds the replicas that the batch names. No lock of the log is needed: a cell stays while it is held.
    pub fn resolve(&mut self, registry: &Registry, batch: &Batch) {
        self.clear();
        for op in &batch.ops {
            let slot = match self.ids.all.last() {
                Some(&last) if last == op.replica => self.ids.all.len() - 1,
                _ => self.slot_of(op.replica),
            };
            self.slots.push(slot);
        }
        match self.ids.all.as_slice() {
            few if few.len() <= FEW => self.cells.extend(few.iter().map(|&id| registry.get_or_create(id))),
            many => self.cells.extend(registry.get_or_create_all(many, &mut self.search)),
        }
    }

    fn slot_of(&mut self, id: u64) -> usize {
        if let Some(slot) = self.ids.position(id) {
            self.grouped = false;
            return slot;
        }
        self.ids.push(id);
        self.ids.all.len() - 1
    }

    /// Forgets the batch, and keeps nobody's cell alive.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.touched.clear();
        self.slots.clear();
        self.ids.clear();
        self.grouped = true;
    }

    /// The slot of an operation.
    pub fn slot(&self, op: usize) -> Option<usize> {
        self.slots.get(op).copied()
    }

    /// Whether the operation is left out, as its replica begins a new life behind it: see [`Anew`].
    pub fn leaves_out(&self, op: usize, what: What) -> bool {
        let touched = || self.slot(op).and_then(|slot| self.touched.get(slot));
        self.anew && touched().and_then(|t| t.anew).is_some_and(|anew| anew.leaves_out(op, what))
    }

    /// Upper bound on the records that begin lives.
    pub fn creating(&self) -> u64 {
        self.touched.iter().map(|t| t.lives).sum::<u64>() * CORE_BYTES
    }
}

/// Why there is no room.
pub(super) struct NoRoom {
    pub lack: Lack,
    /// Chunks in `lack` that the batch would not take: they stay free for a large value.
    pub kept: u64,
    /// Whether there may be room once the journal has grown.
    pub grow: bool,
}

impl Engine {
    /// Checks every operation against the replica it names, in order.
    pub(super) fn validate(&self, batch: &Batch, plan: &Plan, adm: &mut Admission) -> Result<()> {
        (adm.append_chunks, adm.value_chunks) = (0, 0);
        adm.touched.clear();
        adm.touched.extend(adm.cells.iter().map(|cell| Touched::of(&cell.lock())));
        for (i, op) in batch.ops.iter().enumerate() {
            let direct: u64 = plan
                .pieces_of(i)
                .map_or(0, |p| p.iter().map(|p| u64::from(p.blocks().div_ceil(self.geo.blocks_per_chunk))).sum());
            let is_append = matches!(op.what, What::Append { .. });
            *(if is_append { &mut adm.append_chunks } else { &mut adm.value_chunks }) += direct;
            let Some(&slot) = adm.slots.get(i) else { continue };
            let (Some(cell), Some(t)) = (adm.cells.get(slot), adm.touched.get_mut(slot)) else { continue };
            self.validate_op(batch, plan, i, cell, t, direct)?;
        }
        let grows = adm.touched.iter().any(|t| t.grows);
        adm.class = if grows { Class::Grow } else { Class::Keep };
        adm.anew = adm.touched.iter().any(|t| t.anew.is_some());
        Ok(())
    }

    fn validate_op(
        &self,
        batch: &Batch,
        plan: &Plan,
        i: usize,
        cell: &Cell,
        t: &mut Touched,
        direct: u64,
    ) -> Result<()> {
        let Some(op) = batch.ops.get(i) else { return Ok(()) };
        let replica = cell.id;
        match op.what {
            What::Append { first, from, to } => {
                t.create();
                if first < t.first {
                    return Err(Error::Compacted { replica, index: first, first_index: t.first });
                }
                if t.last.checked_add(1).is_some_and(|next| first > next) {
                    return Err(Error::Gap { replica, index: first, expected: t.last + 1 });
                }
                if first <= t.last {
                    t.cut();
                }
                // The batch checked that its indexes exist: the last of them does not overflow, one beyond it may.
                t.last = first + ((to - from) as u64 - 1);
                if direct > 0 {
                    t.adjoins = false;
                    for piece in plan.pieces_of(i).unwrap_or(&[]) {
                        let terms = piece.desc.terms.len() as u64;
                        t.demand.term_runs += terms;
                        t.append_meta(crate::format::piece::PieceDesc::TYPICAL_BYTES + terms * 12);
                    }
                } else {
                    // Entries that do not adjoin begin a run: no more than one, however many are appended.
                    t.demand.spans += u64::from(!std::mem::replace(&mut t.adjoins, true));
                    let mut term = None;
                    for meta in batch.metas.get(from..to).unwrap_or(&[]) {
                        t.demand.weight += weight(meta.len, self.geo.chunk_bytes);
                        t.demand.journal_bytes += journal_bytes(meta.len);
                        if term != Some(meta.term) {
                            term = Some(meta.term);
                            t.demand.term_runs += 1;
                            t.append_meta(12);
                        }
                    }
                }
                t.grows = true;
                t.changed = true;
            }
            What::Put { key, value } => {
                t.create();
                let key = batch.bytes_of(key);
                let (now, held) = {
                    let state = cell.lock();
                    match state.keys.get(key).filter(|_| !t.removed) {
                        // Priced as a new one of its length, which may cost a little more than it does: else the put would seem to grow.
                        Some(Value::Out(piece)) => (
                            value_cost(key, piece.desc.payload_bytes()),
                            piece.desc.blocks().div_ceil(self.geo.blocks_per_chunk.into()),
                        ),
                        Some(inline) => (inline.cost(key), 0),
                        None => (0, 0),
                    }
                };
                let new = value_cost(key, value.len);
                t.demand.meta_bytes += new.saturating_sub(now);
                // Chunks are kept for a large value in the place of one that takes as many. One that takes more grows, as entries do: it
                // would hold for ever what the next one needs of those that are kept.
                t.grows |= if direct > 0 { direct > held } else { new > now };
                t.changed = true;
            }
            What::Delete { .. } => t.changed = true,
            What::Truncate { first } => {
                if !t.exists {
                    return if first <= 1 { Ok(()) } else { Err(Error::UnknownReplica { replica }) };
                }
                if t.last.checked_add(1).is_some_and(|next| first > next) {
                    let why = "truncate_prefix beyond last_index + 1; use install_snapshot, which says the term";
                    return Err(Error::Contradiction { replica, why });
                }
                // As asked, even if some of it waits for the state machine: what a batch truncates it must not append.
                t.truncate(first);
                t.truncated = t.truncated.max(Some(first));
                t.changed = true;
            }
            // There is nothing to cut, and none is created.
            What::Cut { .. } if !t.exists => {}
            What::Cut { from } => {
                if from < t.first {
                    return Err(Error::Compacted { replica, index: from, first_index: t.first });
                }
                if from <= t.last {
                    t.cut();
                }
                t.last = t.last.min(from - 1);
                t.changed = true;
            }
            // A report creates no replica: it is ignored, unless something else of this batch creates one.
            What::Applied { .. } if !t.exists => t.reports_unborn = true,
            What::Applied { life: Some(life), .. } if !cell.lock().is_in(life) => {}
            What::Applied { index, .. } => {
                let (now, first) = {
                    let state = cell.lock();
                    let now = if t.removed { 0 } else { state.keys.cost(APPLIED_KEY) };
                    (now, self.first_behind_report(replica, &state, index))
                };
                if let Some(first) = first.filter(|_| !t.removed && !t.reset) {
                    // As the report will truncate it: what the batch lets go it must not append or cut.
                    t.truncate(first.min(t.last.saturating_add(1)));
                }
                t.report = t.report.max(Some(index));
                let new = value_cost(APPLIED_KEY, APPLIED_BYTES);
                t.demand.meta_bytes += new.saturating_sub(now);
                t.grows |= new > now;
                t.changed = true;
            }
            What::Reset { index, term } => {
                let Some(first) = index.checked_add(1) else {
                    return Err(Error::Contradiction { replica, why: "a snapshot at the last possible index" });
                };
                // Where the state is suspect, a new life begins.
                t.lives += u64::from(t.exists);
                if std::mem::take(&mut t.suspect) && t.changed {
                    t.anew = Some(Anew { op: i, index, term });
                }
                t.create();
                (t.first, t.last) = (first, index);
                t.reset = true;
                t.cut();
                t.replace_entries(cell);
                t.changed = true;
            }
            What::Remove => {
                // No batch asks for that: see `Batch::remove`. The charges below count on it.
                if t.changed {
                    return Err(Error::Contradiction { replica, why: "changed and removed in one batch" });
                }
                (t.exists, t.adjoins, t.removed, t.suspect) = (false, false, true, false);
                t.replaced = true;
                if t.demand.pledged.is_none() {
                    (t.demand, t.appended_meta) = (Demand::default(), 0);
                }
            }
        }
        Ok(())
    }

    /// Whether the accounts have room for what was validated. It is priced with `free` free segments, the fewest with which it may be
    /// applied: so no more of it is carried here than there. `grow`: the caller can wait until the journal has grown, which comes before a
    /// small replica takes chunks.
    ///
    /// What the batch truncates makes room for what it brings; that is looked at only if there is no room otherwise.
    pub(super) fn admit(
        &self,
        adm: &mut Admission,
        accounts: &Accounts,
        free: usize,
        grow: bool,
    ) -> Result<(), NoRoom> {
        let room = self.has_room(adm, accounts, free, grow);
        if room.is_err() && self.give_back_truncated(adm) { self.has_room(adm, accounts, free, grow) } else { room }
    }

    /// Subtracts from what the batch asks for, once, what the truncated entries take in the journal. Returns whether that was anything.
    ///
    /// No more of them than reports let go: the rest waits. Nothing of a replica that is replaced or removed in the batch, as its old
    /// entries do not count any more; nor while some of them are being settled, as only new ones are counted then.
    fn give_back_truncated(&self, adm: &mut Admission) -> bool {
        let mut any = false;
        for (cell, t) in adm.cells.iter().zip(&mut adm.touched) {
            let Some(first) = t.truncated.take().filter(|_| t.demand.pledged.is_none() && !t.replaced) else {
                continue;
            };
            let state = cell.lock();
            let (weight, bytes) = state.places.below(state.reaches(first, t.report), self.geo.chunk_bytes);
            t.demand.weight = t.demand.weight.saturating_sub(weight);
            t.demand.journal_bytes = t.demand.journal_bytes.saturating_sub(bytes);
            any |= bytes > 0;
        }
        any
    }

    fn has_room(&self, adm: &mut Admission, accounts: &Accounts, free: usize, grow: bool) -> Result<(), NoRoom> {
        if adm.class != Class::Grow && adm.value_chunks == 0 {
            return Ok(());
        }
        // The pool is asked only where it matters: most batches take no chunks.
        let may_grow = || {
            let held = accounts.reserved() + self.value_reserve;
            grow && accounts.may_grow(self.pool.lock().free().saturating_sub(held))
        };
        let mut after = accounts.clone();
        for t in &mut adm.touched {
            let mut charge = t.charge;
            let new = after.price(charge, t.demand, free);
            t.admitted = match new.chunks {
                0 => Some(InChunks::No).filter(|_| t.demand.pledged.is_none()),
                _ => Some(InChunks::Yes),
            };
            if new.chunks > 0 && t.demand.pledged.is_none() && after.is_small(t.demand) && may_grow() {
                return Err(NoRoom { lack: Lack::Chunks(0), kept: 0, grow: true });
            }
            after.settle(&mut charge, new);
        }
        if after.carried() > after.budget() && after.carried() > accounts.carried() {
            let lack = Lack::Carried(after.carried() - accounts.carried());
            return Err(NoRoom { lack, kept: 0, grow: may_grow() });
        }
        let takes_chunks = adm.append_chunks > 0 || after.reserved() > accounts.reserved();
        let held_back = if takes_chunks || adm.class == Class::Grow { self.value_reserve } else { 0 };
        let needed = after.reserved() + adm.append_chunks + adm.value_chunks + held_back;
        if (takes_chunks || adm.value_chunks > 0) && needed > self.pool.lock().free() {
            let lack = Lack::Chunks(needed.saturating_sub(accounts.reserved()));
            return Err(NoRoom { lack, kept: held_back, grow: false });
        }
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "admit_tests.rs"]
mod tests;
