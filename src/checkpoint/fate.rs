//! Where a replica's entries in a group go, and the chunks that are pledged for that.

use super::group::Group;
use super::moving::Moving;
use super::resize::KEPT_EIGHTHS;
use crate::engine::{Engine, demand};
use crate::format::BLOCK_BYTES;
use crate::format::piece::PieceDesc;
use crate::index::{Cell, ReplicaState, journal_bytes, weight};
use crate::journal::Sequencer;
use crate::space::{Demand, Held, Pledge};
use crate::sync::Arc;

/// If more than this part of a group is carried, replicas that hold a reservation are settled instead.
const CARRY_SHARE: u64 = 4;
/// The entries in the group of such a replica are settled alone, in blocks of their own, if they weigh at least this part of what is worth
/// a chunk: less would take many times its room.
const CRUMB_SHARE: u64 = 8;
/// And only while chunks are plentiful, and no more than this part of the budget is carried: settled at once, it would be in fewer pieces.
const SCARCE_SHARE: u64 = 2;

/// What becomes of a replica's entries.
pub(super) enum Fate {
    /// Those in the group go to the chain.
    Settle,
    /// All journal-resident entries go to the chain: the reservation is for that.
    SettleAll,
    /// Those in the group go to the journal's head.
    Carry,
}

impl Engine {
    /// What of the replica is to be moved, and where to. `None`: nothing of it is alive in the group. Chunks for what is to be settled are
    /// pledged.
    pub(super) fn alive_in(&self, group: &Group, cell: Arc<Cell>, carried: u64) -> Option<(Moving, Fate)> {
        // A cleaner that carries nearly everything gains nothing.
        let much = carried > group.len() * self.geo.segment_bytes / CARRY_SHARE;
        {
            let state = cell.lock();
            let (part, _) = self.divided(&state, group);
            if part.weight == 0 {
                return None;
            }
            let sooner = much && state.charge.chunks > 0 || self.lacks_chunks(&state);
            if part.weight < self.small_weight() && !sooner {
                return Some((self.seen(&cell, &state, group, false), Fate::Carry));
            }
        }
        // While this lock is held, nobody reserves what is pledged here.
        let mut s = self.seq.lock();
        let mut state = cell.lock();
        let (part, rest) = self.divided(&state, group);
        if part.weight == 0 {
            return None;
        }
        let (fate, held) = self.fate(&s, &state, (part, rest), much);
        let mut tail = None;
        if !matches!(fate, Fate::Carry) {
            tail = state.places.take_tail();
            let kept = self.pool.lock().keep(tail);
            let terms = Demand { term_runs: rest.term_runs, ..Demand::default() };
            let stays = if matches!(fate, Fate::Settle) { rest } else { terms };
            state.pledge = Some(Box::new(Pledge::new(held, stays, kept)));
            self.recharge(&mut s, &mut state);
        }
        // The entries listed are those that the pledge is for: nobody changes the replica without its cell. Other replicas need not wait
        // for the listing.
        drop(s);
        let moving = Moving { tail, ..self.seen(&cell, &state, group, matches!(fate, Fate::SettleAll)) };
        drop(state);
        Some((moving, fate))
    }

    /// Where the replica's entries in the group go (their demand is `part`, that of its other entries `rest`), and what that may take.
    fn fate(&self, s: &Sequencer, state: &ReplicaState, (part, rest): (Demand, Demand), much: bool) -> (Fate, Held) {
        let chunk = self.geo.chunk_bytes.into();
        let (behind, free) = {
            let pool = self.pool.lock();
            (u64::from(pool.behind(state.places.tail())) * BLOCK_BYTES, pool.free())
        };
        let taken = if part.bytes() <= behind { 0 } else { part.chunks(chunk) };
        // At least what all at once takes: if nothing comes of it, the replica needs that again.
        let at_once = Held { chunks: state.charge.chunks, ..demand(state).held(chunk) };
        let in_parts = Held {
            chunks: (taken + rest.chunks(chunk)).max(at_once.chunks),
            pieces: (part.held(chunk).pieces + rest.held(chunk).pieces).max(at_once.pieces),
            carried: 0,
        };
        let unreserved = free.saturating_sub(s.accounts.reserved() + self.value_reserve);
        let (carried, budget) = (s.accounts.carried(), s.accounts.budget());
        let worth_chunks = part.weight >= self.small_weight();
        // Otherwise nearly everything would be carried; and a replica that holds chunks is settled sooner or later.
        let anyway = much && at_once.chunks > 0;
        let is_crumb = part.weight < self.small_weight() / CRUMB_SHARE;
        let plenty = unreserved >= self.eighths(KEPT_EIGHTHS) && carried <= budget / SCARCE_SHARE;
        let worth_blocks = worth_chunks || anyway && !is_crumb && plenty;
        let (chunks, pieces) = (in_parts.chunks - at_once.chunks, in_parts.pieces - at_once.pieces);
        let room = chunks <= unreserved && (pieces == 0 || carried + pieces * PieceDesc::TYPICAL_BYTES <= budget);
        if worth_blocks && room {
            (Fate::Settle, in_parts)
        } else if at_once.chunks > 0 && (worth_chunks || anyway) {
            // In parts it may take more than the replica holds; at once it does not.
            (Fate::SettleAll, at_once)
        } else if self.lacks_chunks(state) {
            let over = carried > budget;
            // If the cleaner may not get around what is carried, large values are the lesser need.
            let spare = if over { free.saturating_sub(s.accounts.reserved()) } else { unreserved };
            self.fate_without_chunks(state, part, (taken, spare), much || over)
        } else {
            (Fate::Carry, Held::default())
        }
    }

    /// For a replica for which an opening found no chunks: what finds some of the `spare` ones is settled, the rest goes on being carried.
    /// `pressed`: it is settled even if it is not worth a chunk.
    fn fate_without_chunks(
        &self,
        state: &ReplicaState,
        part: Demand,
        (taken, spare): (u64, u64),
        pressed: bool,
    ) -> (Fate, Held) {
        let chunk = self.geo.chunk_bytes.into();
        let worth_chunks = part.weight >= self.small_weight();
        let is_crumb = part.weight < self.small_weight() / CRUMB_SHARE;
        let (all, journal) = (demand(state).held(chunk), state.places.journal_bytes());
        let some = Held { chunks: taken, carried: journal, ..part.held(chunk) };
        // Less is carried afterwards, whatever becomes of the settling.
        let gains = |held: Held, bytes| held.chunks <= spare && held.pieces * PieceDesc::TYPICAL_BYTES < bytes;
        if (worth_chunks || pressed) && gains(all, journal) {
            (Fate::SettleAll, all)
        } else if (worth_chunks || pressed && !is_crumb) && gains(some, part.journal_bytes) {
            (Fate::Settle, some)
        } else {
            (Fate::Carry, Held::default())
        }
    }

    /// Whether an opening found no chunks for the replica: it is carried, large as it is.
    fn lacks_chunks(&self, state: &ReplicaState) -> bool {
        state.charge.chunks == 0 && state.places.weight() >= self.small_weight()
    }

    /// The demand of the replica's entries in the group, and of those that stay.
    fn divided(&self, state: &ReplicaState, group: &Group) -> (Demand, Demand) {
        let term_runs = state.terms.len() as u64;
        let mut going = 0;
        let (mut part, mut rest) =
            (Demand { term_runs, ..Demand::default() }, Demand { term_runs, ..Demand::default() });
        for span in state.places.spans().iter() {
            let mut before = None;
            let up_to = span.up_to(group.lsns());
            for &loc in up_to {
                let goes = group.holds_entry(loc);
                let begins = u64::from(before.replace(goes) != Some(goes));
                if goes {
                    going += 1;
                    part.weight += weight(loc.len(), self.geo.chunk_bytes);
                    part.journal_bytes += journal_bytes(loc.len());
                    part.spans += begins;
                } else {
                    rest.spans += begins;
                }
            }
            rest.spans += u64::from(up_to.len() < span.locs().len() && before != Some(false));
        }
        rest.weight = state.places.weight() - part.weight;
        part.term_runs = term_runs.min(going);
        (part, rest)
    }

    /// Ends the pledge, and gives back what of it was not taken.
    pub(super) fn redeem(&self, s: &mut Sequencer, state: &mut ReplicaState) {
        let pledge = state.pledge.take();
        if let Some(kept) = pledge.as_ref().and_then(|pledge| pledge.kept) {
            self.pool.lock().give_back(&[kept], &self.pins);
        }
        let demand = demand(state);
        let price = match pledge.map(|pledge| pledge.held.carried) {
            // Charged as before, with what was appended meanwhile: no admission asked for chunks for that.
            Some(1..) => s.accounts.price_carried(demand),
            // Also if all of them were taken: what was not linked has given them back under this lock.
            Some(0) => s.price(state.charge, demand),
            None => s.price_unasked(state.charge, demand),
        };
        s.accounts.settle(&mut state.charge, price);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "fate_tests.rs"]
mod tests;
