//! Accounting: every chunk in exactly one place, every replica charged what it costs.

use std::collections::HashSet;

use crate::chain::verify_piece;
use crate::disk::Disk;
use crate::engine::{Geometry, demand};
use crate::format::piece::{Extents, PieceDesc, TermRuns};
use crate::index::{Cell, ReplicaState};
use crate::space::{Accounts, Charge, Owners, Pins, Pool, Tail};
use crate::sync::Arc;

/// Claims the chunks of every linked piece. Returns the replicas whose keyed state lost a value, and was not suspect before.
///
/// Where two replicas name one chunk, a piece that is known to be lost gives it up, whether its bytes are still there or not: a neighbour's
/// lost truncation must not hurt the chunk's new owner. All that such a truncation freed is known to be lost, as its replica is suspect up
/// to the last entry that it had then; nobody is shown any of it, so giving it up costs nothing. Of the other pieces, the one whose header
/// lies there keeps the chunk, and the rest are damage.
pub(super) fn claim_chunks(
    disk: &dyn Disk,
    geo: &Geometry,
    pool: &mut Pool,
    cells: &[Arc<Cell>],
    pins: &Arc<Pins>,
) -> Vec<u64> {
    // No other replica has chunks.
    let holders: Vec<&Cell> = cells.iter().map(|cell| &**cell).filter(|cell| holds_pieces(&cell.lock())).collect();
    let contested = contested(geo, pool.owners(), &holders);
    let mut suspect = Vec::new();
    let mut owners = pool.owners();
    // Pieces that are not lost share no block: of an image that says otherwise no more is read than the pool.
    let mut unread = u64::from(geo.pool_blocks);
    for (owner, cell) in (0..).zip(&holders) {
        let (id, mut state) = (cell.id, cell.lock());
        let mut keep = |desc: &PieceDesc, is_lost: bool| {
            let fought_over = chunks(geo, desc).any(|c| contested.contains(&c));
            if fought_over && (is_lost || !holds(disk, geo, id, desc, pins, &mut unread)) {
                return false;
            }
            pool.claim(&desc.extents, owner, &mut owners)
        };
        let (first, damaged, state_suspect) = (state.first, state.damaged.clone(), state.state_suspect);
        let lost = state.places.retain_chain(|piece| {
            let (lo, hi) = (piece.desc.first.max(first), piece.desc.last());
            keep(&piece.desc, damaged.iter().any(|&(from, to)| from <= lo && hi <= to))
        });
        for (first, last) in lost {
            state.add_damage(first, last);
        }
        if !state.keys.retain(|entry| entry.value.piece().is_none_or(|piece| keep(&piece.desc, state_suspect)))
            && !std::mem::replace(&mut state.state_suspect, true)
        {
            suspect.push(id);
        }
        state.clip_damage();
        let tail = tail(geo, pool, &state);
        state.places.set_tail(tail);
    }
    suspect
}

/// Each lost truncation leaves pieces whose space is somebody else's by now. No device loses so many that they name the pool this often.
const MOST_TIMES: u64 = 8;

/// Whether the linked pieces take no more space than a log can lose track of: an image that says otherwise is not accounted without end.
pub(super) fn is_bounded(geo: &Geometry, cells: &[Arc<Cell>]) -> bool {
    let taken = cells.iter().fold(0_u64, |sum, cell| {
        let state = cell.lock();
        let values = state.keys.iter().filter_map(|e| e.value.piece());
        state.places.chain().iter().chain(values).fold(sum, |sum, p| sum.saturating_add(p.desc.blocks()))
    });
    taken <= u64::from(geo.pool_blocks).saturating_mul(MOST_TIMES)
}

fn holds_pieces(state: &ReplicaState) -> bool {
    !state.places.chain().is_empty() || state.keys.iter().any(|entry| entry.value.piece().is_some())
}

/// As [`claim_chunks`], for a snapshot, in which no replica names another's chunk. `false`: one does, so it is none.
pub(super) fn claim_all(geo: &Geometry, pool: &mut Pool, cells: &[Arc<Cell>]) -> bool {
    let mut owners = pool.owners();
    for (owner, cell) in (0..).zip(cells) {
        let mut state = cell.lock();
        let values = state.keys.iter().filter_map(|e| e.value.piece());
        if !state.places.chain().iter().chain(values).all(|p| pool.claim(&p.desc.extents, owner, &mut owners)) {
            return false;
        }
        let tail = tail(geo, pool, &state);
        state.places.set_tail(tail);
    }
    true
}

/// Where the replica's next piece may go. To be asked before any of its chunks is freed.
fn tail(geo: &Geometry, pool: &Pool, state: &ReplicaState) -> Option<Tail> {
    let chain = state.places.chain();
    let last = chain.iter().max_by_key(|p| p.desc.id)?.desc.extents.last()?;
    let chunk = last.chunks(geo.blocks_per_chunk).last();
    // The chunk's other pieces may reach further: younger ones lie behind older ones, but ids wrap between sessions.
    let ends = chain.iter().flat_map(|p| &p.desc.extents);
    let end = ends.filter(|e| e.chunks(geo.blocks_per_chunk).last() == chunk).map(|e| e.block + e.blocks - 1).max();
    pool.tail_behind(end?)
}

/// Holds the space of pieces that the last frames brought and that no replica links any more, until a watermark covers them.
///
/// **The next recovery verifies them again**: overwritten before that, they would take an acknowledged frame with them.
pub(super) fn hold_unsettled(
    geo: &Geometry,
    pool: &mut Pool,
    cells: &[Arc<Cell>],
    unsettled: Vec<(u64, Extents)>,
    end: u64,
) {
    if unsettled.is_empty() {
        return;
    }
    let mut linked: HashSet<u64> = HashSet::new();
    for cell in cells {
        let state = cell.lock();
        linked.extend(state.places.chain().iter().map(|p| p.desc.id));
        linked.extend(state.keys.iter().filter_map(|e| e.value.piece()).map(|piece| piece.desc.id));
    }
    let mut held: HashSet<u32> = HashSet::new();
    for (id, extents) in unsettled {
        // Once, however often it is named.
        if linked.insert(id) {
            let extents = pool.hold_dead(end, extents);
            held.extend(extents.iter().flat_map(|e| e.chunks(geo.blocks_per_chunk)));
        }
    }
    for cell in cells {
        let mut state = cell.lock();
        if state.places.tail().is_some_and(|t| held.contains(&t.chunk)) {
            state.places.set_tail(None);
        }
    }
}

fn chunks(geo: &Geometry, desc: &PieceDesc) -> impl Iterator<Item = u32> {
    desc.extents.iter().flat_map(|e| e.chunks(geo.blocks_per_chunk))
}

/// Chunks that more than one replica names.
fn contested(geo: &Geometry, mut owners: Owners, holders: &[&Cell]) -> HashSet<u32> {
    let mut contested = HashSet::new();
    for (owner, cell) in (0..).zip(holders) {
        let state = cell.lock();
        let values = state.keys.iter().filter_map(|e| e.value.piece());
        for chunk in state.places.chain().iter().chain(values).flat_map(|p| chunks(geo, &p.desc)) {
            match owners.get(chunk) {
                None => {
                    owners.set(chunk, owner);
                }
                Some(other) if other != owner => {
                    contested.insert(chunk);
                }
                Some(_) => {}
            }
        }
    }
    contested
}

/// Whether the piece's own header lies where its descriptor says. `unread`: how many blocks may still be looked at.
fn holds(disk: &dyn Disk, geo: &Geometry, id: u64, desc: &PieceDesc, pins: &Arc<Pins>, unread: &mut u64) -> bool {
    let Some(left) = unread.checked_sub(desc.blocks()) else { return false };
    *unread = left;
    // Without terms only header and table are compared: enough to tell whose chunk it is.
    let desc = PieceDesc { terms: TermRuns::new(), ..desc.clone() };
    verify_piece(disk, geo.seed, id, &desc, pins).unwrap_or(false)
}

/// Charges every replica, where this many segments and chunks are free, `kept` of the chunks for a large value. Never refuses: a log over
/// its budget opens, and takes no appends until it is drained.
pub(super) fn charge(accounts: &mut Accounts, cells: &[Arc<Cell>], (segments, chunks): (usize, u64), kept: u64) {
    // Whether a small replica found no room and reserved chunks instead; and whether one did that may have held none before.
    let (mut refused, mut perhaps_new) = (false, false);
    for cell in cells {
        let mut state = cell.lock();
        let demand = demand(&state);
        let price = accounts.price(state.charge, demand, segments);
        accounts.settle(&mut state.charge, price);
        refused |= price.chunks > 0 && accounts.is_small(demand);
        perhaps_new |= price.chunks > 0 && accounts.may_have_been_small(demand);
    }
    let left = if perhaps_new { kept } else { 0 };
    let is_there = accounts.reserved() + left <= chunks;
    if !refused && accounts.has_room_for_small() && accounts.is_covered(segments) && is_there {
        // The order did not matter: there was room on the way, too.
        return;
    }
    // Metadata first.
    let mut order: Vec<(u64, &Cell)> = Vec::new();
    for cell in cells {
        let mut state = cell.lock();
        let meta = Charge { chunks: 0, carried: state.meta_bytes() };
        accounts.settle(&mut state.charge, meta);
        if state.places.journal_bytes() > 0 {
            order.push((state.places.weight(), cell));
        }
    }
    order.sort_by_key(|&(weight, _)| weight);
    // Large replicas are settled in any case, and get their chunks before all others, the largest first: they take the fewest. Then as many
    // small ones as possible are carried. No replica is given a chunk that is not there: it would be taken from one that is settled
    // earlier, and a replica whose turn comes when none is left ends all cleaning. It is carried instead, whatever its size. A replica that
    // is small only where more is carried may have held no chunks: it comes behind those that held some.
    let (small, large): (Vec<_>, Vec<_>) =
        order.iter().map(|&(_, cell)| cell).partition(|cell| accounts.may_have_been_small(demand(&cell.lock())));
    // The large ones first, the largest of them ahead; then the small ones, the smallest ahead: a carried replica takes no chunk.
    let mut in_chunks = Vec::new();
    for cell in large.into_iter().rev().chain(small) {
        let mut state = cell.lock();
        let demand = demand(&state);
        let price = accounts.price(state.charge, demand, segments);
        if price.chunks > 0 && accounts.may_have_been_small(demand) {
            in_chunks.push(cell);
            continue;
        }
        let is_there = price.chunks == 0 || accounts.reserved() + price.chunks <= chunks;
        accounts.settle(&mut state.charge, if is_there { price } else { accounts.price_carried(demand) });
    }
    // Small replicas that were not carried leave the chunks kept for a large value alone as long as the budget can carry them: since then
    // keys may have taken the room in which they were. The largest first, for which the budget has the least room.
    for cell in in_chunks.into_iter().rev() {
        let mut state = cell.lock();
        let demand = demand(&state);
        let (settled, carried) = (accounts.price_in_chunks(demand), accounts.price_carried(demand));
        let others = accounts.carried() - state.charge.carried;
        let left = if others + carried.carried <= accounts.budget() { kept } else { 0 };
        let is_there = accounts.reserved() + settled.chunks + left <= chunks;
        accounts.settle(&mut state.charge, if is_there { settled } else { carried });
    }
    // A replica that became small where little was free has kept its chunks until now: carried, it could stop the cleaner. Which ones these
    // were is not known any more, so the largest are settled: they take the fewest chunks.
    for (_, cell) in order.into_iter().rev() {
        if accounts.is_covered(segments) {
            return;
        }
        let mut state = cell.lock();
        let settled = accounts.price_in_chunks(demand(&state));
        let had = accounts.reserved() + settled.chunks <= chunks;
        if had && state.charge.chunks == 0 && settled.carried < state.charge.carried {
            accounts.settle(&mut state.charge, settled);
        }
    }
}
