//! Accounting: every chunk in exactly one place, every replica charged what it costs.

use std::collections::HashSet;

use crate::chain::verify_piece;
use crate::disk::Disk;
use crate::engine::{Geometry, demand};
use crate::format::piece::{Extents, PieceDesc, TermRuns};
use crate::index::{Cell, ReplicaState};
use crate::space::{Accounts, Charge, Owners, Pins, Pool, Tail};
use crate::sync::Arc;

/// Claims the chunks of every linked piece. Answers whose keyed state lost a value, and was not suspect before.
///
/// Where two replicas name one chunk, what is known to be lost gives it up, whether its bytes are still there or not: a neighbour's lost
/// truncation must not hurt the chunk's new owner. Whatever such a truncation freed is known to be lost: its replica is suspect up to the last
/// entry that it had then; and nobody is shown any of it, so that it costs nothing. Of what is left, the piece whose header lies there keeps
/// the chunk, and the other is damage.
pub(super) fn claim_chunks(
    disk: &dyn Disk,
    geo: &Geometry,
    pool: &mut Pool,
    cells: &[Arc<Cell>],
    pins: &Arc<Pins>,
) -> Vec<u64> {
    // Nobody else has any.
    let holders: Vec<&Cell> = cells.iter().map(|cell| &**cell).filter(|cell| holds_pieces(&cell.lock())).collect();
    let contested = contested(geo, pool.owners(), &holders);
    let mut suspect = Vec::new();
    let mut owners = pool.owners();
    // No two pieces that are not lost share a block: whoever says otherwise is not read without end.
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

/// Each lost truncation leaves pieces whose space is somebody else's by now. So many times as much as there is no device loses.
const MOST_TIMES: u64 = 8;

/// Whether the linked pieces take no more space than a log can have lost track of: whoever says otherwise is not accounted without end.
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

/// As [`claim_chunks`], of a snapshot: there nobody names another's chunk, or it is none. `false`: somebody does.
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

/// Where the replica's next piece may go: no chunk of its is freed before that.
fn tail(geo: &Geometry, pool: &Pool, state: &ReplicaState) -> Option<Tail> {
    let chain = state.places.chain();
    let last = chain.iter().max_by_key(|p| p.desc.id)?.desc.extents.last()?;
    let chunk = last.chunks(geo.blocks_per_chunk).last();
    // The chunk's other pieces may reach further: younger ones lie behind older ones, but ids wrap between sessions.
    let ends = chain.iter().flat_map(|p| &p.desc.extents);
    let end = ends.filter(|e| e.chunks(geo.blocks_per_chunk).last() == chunk).map(|e| e.block + e.blocks - 1).max();
    pool.tail_behind(end?)
}

/// Holds the space of pieces that the last frame brought and that nobody links any more, until a watermark covers that frame.
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

/// Whether the piece's own header lies where its descriptor says. `unread`: so many blocks may be looked at.
fn holds(disk: &dyn Disk, geo: &Geometry, id: u64, desc: &PieceDesc, pins: &Arc<Pins>, unread: &mut u64) -> bool {
    let Some(left) = unread.checked_sub(desc.blocks()) else { return false };
    *unread = left;
    // Without terms only header and table are compared: enough to tell whose chunk it is.
    let desc = PieceDesc { terms: TermRuns::new(), ..desc.clone() };
    verify_piece(disk, geo.seed, id, &desc, pins).unwrap_or(false)
}

/// Charges every replica, and answers by which carry fraction: the one that was asked for, or a larger one, where by that too few chunks were left
/// of those that are `kept` for a large value. A log that was filled with the larger one carries what would be given chunks by a smaller one.
pub(super) fn charge_by_fraction(
    accounts: impl Fn(u8) -> Accounts,
    percent: u8,
    cells: &[Arc<Cell>],
    (segments, chunks): (usize, u64),
    kept: u64,
) -> (Accounts, u8) {
    let charged = |percent| {
        cells.iter().for_each(|cell| cell.lock().charge = Charge::default());
        let mut accounts = accounts(percent);
        charge(&mut accounts, cells, (segments, chunks), kept);
        accounts
    };
    let is_left = |a: &Accounts| a.reserved() + kept <= chunks;
    let is_sound = |a: &Accounts| a.carried() <= a.budget() && a.is_covered(segments);
    let asked = charged(percent);
    if is_left(&asked) {
        return (asked, percent);
    }
    for larger in CARRY_PERCENTS.into_iter().filter(|larger| *larger > percent) {
        let accounts = charged(larger);
        if is_left(&accounts) && is_sound(&accounts) {
            return (accounts, larger);
        }
    }
    (charged(percent), percent)
}

/// The carry fractions that are tried where the one asked for leaves nothing for a large value.
const CARRY_PERCENTS: [u8; 4] = [12, 25, 50, 100];

/// Charges every replica, where so many segments and chunks are free, of which so many are `kept` for a large value. Never refuses: a log over its budget opens, and takes no appends
/// until it is drained.
pub(super) fn charge(accounts: &mut Accounts, cells: &[Arc<Cell>], (segments, chunks): (usize, u64), kept: u64) {
    // Whether a small replica found no room and reserved chunks instead.
    let price = |accounts: &mut Accounts, cell: &Cell| {
        let mut state = cell.lock();
        let demand = demand(&state);
        let price = accounts.price(state.charge, demand, segments);
        accounts.settle(&mut state.charge, price);
        price.chunks > 0 && accounts.is_small(demand)
    };
    let refused = cells.iter().fold(false, |any, cell| price(accounts, cell) | any);
    if !refused && accounts.has_room_for_small() && accounts.is_covered(segments) && accounts.reserved() <= chunks {
        // Whatever the order: there was room on the way, too.
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
    // Who is settled in any case holds its chunks before anybody else has one, the largest first: they take the fewest. Then as many as
    // possible of the small ones are carried. Nobody is given a chunk that is not there: it would be taken from who is settled earlier, and
    // one whose turn comes when there is none left ends all cleaning. It is carried, whatever its size.
    let (small, large): (Vec<_>, Vec<_>) =
        order.iter().map(|&(_, cell)| cell).partition(|cell| accounts.is_small(demand(&cell.lock())));
    // The large ones first, then the smallest: who is carried takes no chunk.
    let mut in_chunks = Vec::new();
    for cell in large.into_iter().rev().chain(small) {
        let mut state = cell.lock();
        let demand = demand(&state);
        let price = accounts.price(state.charge, demand, segments);
        if price.chunks > 0 && accounts.is_small(demand) {
            in_chunks.push(cell);
            continue;
        }
        let is_there = price.chunks == 0 || accounts.reserved() + price.chunks <= chunks;
        accounts.settle(&mut state.charge, if is_there { price } else { accounts.price_carried(demand) });
    }
    // Nor do the others take those that are kept for a large value, as long as they can be carried: keys may have taken the room since in
    // which they were. The largest first, which the budget has the least room for.
    for cell in in_chunks.into_iter().rev() {
        let mut state = cell.lock();
        let demand = demand(&state);
        let (settled, carried) = (accounts.price_in_chunks(demand), accounts.price_carried(demand));
        let others = accounts.carried() - state.charge.carried;
        let left = if others + carried.carried <= accounts.budget() { kept } else { 0 };
        let is_there = accounts.reserved() + settled.chunks + left <= chunks;
        accounts.settle(&mut state.charge, if is_there { settled } else { carried });
    }
    // Who became small where little was free has kept its chunks until now: carried, it could stop the cleaner. Which they were nobody
    // knows any more, so the largest are settled: they take the fewest chunks.
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
