//! Whose chunks are whose after a replay, and what everybody is charged.

use std::collections::HashMap;

use smallvec::smallvec;

use super::account::{charge, claim_chunks, hold_unsettled, is_bounded};
use super::tests::{CAPACITY, SEGMENT, packed, superblock, with_cells};
use crate::chain::{PackEntry, Packed, pack};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::engine::Geometry;
use crate::format::piece::{Extent, Extents, PieceDesc, TermRuns};
use crate::index::{Cell, ChainPiece, Loc, ReplicaState};
use crate::space::{Accounts, Pins, Pool, Tail};
use crate::sync::Arc;

fn holding(packed: &Packed, extents: Extents) -> ReplicaState {
    let mut state = ReplicaState { exists: true, last: u64::from(packed.desc.count), ..ReplicaState::default() };
    let mut desc = packed.at(extents);
    state.terms.push(1, 1);
    desc.terms.clear();
    assert!(state.places.set_chain(ChainPiece { desc, meta_seq: 1, mem: None }, 16 << 10));
    state
}

/// A truncation was lost, and the chunk has a new owner by now.
#[test]
fn of_two_replicas_that_name_one_chunk_the_one_whose_bytes_lie_there_keeps_it() {
    let (geo, superblock) = (Geometry::new(&superblock()), superblock());
    for (loser, owner) in [(1, 2), (2, 1), (5, 9), (9, 5), (100, 3), (3, 100)] {
        let disk = SimDisk::new(CAPACITY);
        let (old, new) = (packed(loser, 3), packed(owner, 3));
        let extents = vec![Extent { block: 30 * 4, blocks: new.blocks() }];
        disk.write_at(extents[0].offset(), new.buf.as_slice()).expect("written");
        let mut states = HashMap::from([
            (loser, holding(&old, extents.clone().into())),
            (owner, holding(&new, extents.clone().into())),
        ]);
        let mut pool = Pool::new(superblock.chunk_count(), 16 << 10, SEGMENT as u32, &superblock.journal_slabs);
        with_cells(&mut states, |cells| drop(claim_chunks(&disk, &geo, &mut pool, cells, &Arc::new(Pins::new(1)))));
        assert_eq!(*states[&owner].damaged, [], "{owner} keeps what is its own");
        assert_eq!(*states[&loser].damaged, [(1, 3)], "{loser} has nothing there any more");
        assert_eq!(pool.used(), 1);
    }
}

/// A piece of one block: three entries from `first` on, or one value.
fn small(owner: u64, first: u64, id: u64) -> Packed {
    let payload = [owner as u8; 1000];
    let entry = PackEntry { term: 1, payload: &payload, payload_crc: crc32c::crc32c(&payload), bulk: None };
    let entries = [entry; 3];
    let entries = if first > 0 { &entries[..] } else { &entries[..1] };
    let packed = pack(superblock().seed(), owner, first, entries, 16 << 10, || id).pop().expect("one piece");
    assert_eq!(packed.blocks(), 1);
    packed
}

/// A frame that truncated the loser is lost, and with it that three pieces and a value are past. Their chunk has a new owner, who has written less
/// there than they were: of some of them all bytes are left.
#[test]
fn what_is_known_to_be_lost_takes_no_chunk_from_its_new_owner() {
    let (geo, superblock) = (Geometry::new(&superblock()), superblock());
    let (loser, owner, third) = (1, 2, 3);
    let at = |block| Extent { block, blocks: 1 };
    let value = |packed: &Packed, block| {
        let desc = PieceDesc { terms: TermRuns::new(), ..packed.at(smallvec![at(block)]) };
        ChainPiece { desc, meta_seq: 1, mem: None }
    };
    for (owners_is_a_value, order) in [(false, [0, 1, 2]), (true, [0, 1, 2]), (false, [2, 1, 0]), (true, [2, 1, 0])] {
        let disk = SimDisk::new(CAPACITY);
        let write = |packed: &Packed, block| disk.write_at(at(block).offset(), packed.buf.as_slice()).expect("written");
        let mut old = ReplicaState { exists: true, state_suspect: true, ..ReplicaState::default() };
        for (n, block) in (0..).zip([120, 121]) {
            let piece = small(loser, 1 + 3 * n, 10 + n);
            write(&piece, block);
            link(&mut old, &piece, piece.desc.id, piece.desc.first, at(block));
        }
        let old_value = small(loser, 0, 12);
        write(&old_value, 122);
        old.keys.put_out(b"old", value(&old_value, 122), 1, &mut Vec::new());
        old.add_damage(1, 6);
        // Appended anew behind the loss, and some of it in a chunk that another one's lost truncation names.
        let anew = small(loser, 7, 13);
        write(&anew, 200);
        link(&mut old, &anew, 13, 7, at(200));
        let mut hurt_too = ReplicaState { exists: true, ..ReplicaState::default() };
        let gone = small(third, 1, 30);
        write(&gone, 201);
        link(&mut hurt_too, &gone, 30, 1, at(201));
        hurt_too.add_damage(1, 3);
        let new = small(owner, u64::from(!owners_is_a_value), 20);
        write(&new, 120);
        let mut state = ReplicaState { exists: true, ..ReplicaState::default() };
        if owners_is_a_value {
            state.keys.put_out(b"new", value(&new, 120), 1, &mut Vec::new());
        } else {
            link(&mut state, &new, 20, 1, at(120));
        }
        let cells = [(loser, old), (owner, state), (third, hurt_too)];
        let cells = cells.map(|(id, state)| Arc::new(Cell::new(id, state)));
        let ordered: Vec<_> = order.iter().map(|&i| Arc::clone(&cells[i])).collect();
        let mut pool = Pool::new(superblock.chunk_count(), 16 << 10, SEGMENT as u32, &superblock.journal_slabs);
        let suspect = claim_chunks(&disk, &geo, &mut pool, &ordered, &Arc::new(Pins::new(1)));
        let what = format!("a value: {owners_is_a_value}, in order {order:?}");
        let state = cells[1].lock();
        assert_eq!((&*state.damaged, state.state_suspect), (&[][..], false), "the owner keeps what is its own: {what}");
        assert_eq!(state.keys.len() + state.places.chain().len(), 1, "{what}");
        assert!(suspect.is_empty(), "who lost a value was known to be suspect: {what}");
        let state = cells[0].lock();
        assert_eq!((&*state.damaged, state.keys.len()), (&[(1, 6)][..], 0), "no more than was known: {what}");
        let kept: Vec<u64> = state.places.chain().iter().map(|p| p.desc.id).collect();
        assert_eq!(kept, [13], "what is not lost keeps its chunk: {what}");
        assert_eq!(*cells[2].lock().damaged, [(1, 3)], "{what}");
        assert_eq!(pool.used(), 2);
    }
}

/// Lost, too, and nobody else names its chunk: it stays where it is.
#[test]
fn what_is_lost_keeps_a_chunk_that_nobody_else_names() {
    let (geo, superblock) = (Geometry::new(&superblock()), superblock());
    let mut state = ReplicaState { exists: true, ..ReplicaState::default() };
    link(&mut state, &small(1, 1, 10), 10, 1, Extent { block: 120, blocks: 1 });
    state.add_damage(1, 3);
    let mut states = HashMap::from([(1, state)]);
    let mut pool = Pool::new(superblock.chunk_count(), 16 << 10, SEGMENT as u32, &superblock.journal_slabs);
    let disk = SimDisk::new(CAPACITY);
    with_cells(&mut states, |cells| drop(claim_chunks(&disk, &geo, &mut pool, cells, &Arc::new(Pins::new(1)))));
    assert_eq!((pool.used(), states[&1].places.chain().len()), (1, 1));
}

/// Nobody writes a log that does so.
#[test]
fn however_many_pieces_name_blocks_that_are_fought_over_no_more_is_read_than_there_is() {
    let (geo, superblock) = (Geometry::new(&superblock()), superblock());
    let payload = vec![7; 1 << 20];
    let entry = PackEntry { term: 1, payload: &payload, payload_crc: crc32c::crc32c(&payload), bulk: None };
    let bare = pack(superblock.seed(), 1, 1, &[entry], 16 << 10, || 1).pop().expect("one piece");
    let extent = Extent { block: 120, blocks: bare.blocks() };
    let [mut one, mut other] = [(); 2].map(|()| ReplicaState { exists: true, ..ReplicaState::default() });
    (1..=200).for_each(|n| link(&mut one, &bare, n, n, extent));
    link(&mut other, &bare, 1, 1, extent);
    let mut states = HashMap::from([(1, one), (2, other)]);
    let mut pool = Pool::new(superblock.chunk_count(), 16 << 10, SEGMENT as u32, &superblock.journal_slabs);
    let disk = SimDisk::new(CAPACITY);
    with_cells(&mut states, |cells| drop(claim_chunks(&disk, &geo, &mut pool, cells, &Arc::new(Pins::new(1)))));
    assert!(disk.bytes_read() <= CAPACITY, "{} bytes were read", disk.bytes_read());
}

#[test]
fn nothing_is_written_behind_a_dead_piece_that_is_held() {
    let (geo, superblock) = (Geometry::new(&superblock()), superblock());
    let mut pool = Pool::new(superblock.chunk_count(), 16 << 10, SEGMENT as u32, &superblock.journal_slabs);
    let behind = |chunk| {
        let mut state = ReplicaState::default();
        state.places.set_tail(Some(Tail { chunk, generation: 0, block: chunk * 4 + 1 }));
        state
    };
    let mut states = HashMap::from([(1, behind(30)), (2, behind(31)), (3, behind(40))]);
    let dead = vec![Extent { block: 30 * 4, blocks: 5 }];
    with_cells(&mut states, |cells| hold_unsettled(&geo, &mut pool, cells, vec![(77, dead.into())], 5000));
    assert_eq!([1, 2, 3].map(|id| states[&id].places.tail().is_some()), [false, false, true]);
    assert_eq!(pool.pending(), 2, "held until a watermark covers the frame that names it");
}

fn link(state: &mut ReplicaState, packed: &Packed, id: u64, first: u64, extent: Extent) {
    let mut desc = packed.at(smallvec![extent]);
    (desc.id, desc.first, desc.terms) = (id, first, TermRuns::new());
    state.last = desc.last();
    assert!(state.places.set_chain(ChainPiece { desc, meta_seq: 1, mem: None }, 16 << 10));
}

/// Their bytes are not looked at: the journal vouches for them.
#[test]
fn what_only_one_replica_names_is_its_own_and_its_tail_is_behind_its_newest_piece() {
    let (geo, superblock) = (Geometry::new(&superblock()), superblock());
    let piece = packed(1, 1);
    assert_eq!(piece.blocks(), 1);
    let at = |block| Extent { block, blocks: 1 };
    let (mut mine, mut theirs) = (ReplicaState { exists: true, ..Default::default() }, ReplicaState::default());
    theirs.exists = true;
    // Ids wrap between sessions: the newest by its id is not the last in its chunk.
    for (first, (id, block)) in (1..).zip([(500, 31 * 4 + 3), (900, 30 * 4), (700, 30 * 4 + 1), (100, 33 * 4)]) {
        link(&mut mine, &piece, id, first, at(block));
    }
    link(&mut theirs, &piece, 600, 1, at(32 * 4 + 2));
    let mut states = HashMap::from([(1, mine), (2, theirs)]);
    let mut pool = Pool::new(superblock.chunk_count(), 16 << 10, SEGMENT as u32, &superblock.journal_slabs);
    let disk = SimDisk::new(CAPACITY);
    with_cells(&mut states, |cells| drop(claim_chunks(&disk, &geo, &mut pool, cells, &Arc::new(Pins::new(1)))));
    assert!(states.values().all(|s| s.damaged.is_empty()), "{states:?}");
    assert_eq!(pool.used(), 4);
    assert_eq!(states[&1].places.tail(), Some(Tail { chunk: 30, generation: 0, block: 30 * 4 + 2 }));
    assert_eq!(states[&2].places.tail(), Some(Tail { chunk: 32, generation: 0, block: 32 * 4 + 3 }));
}

/// Metadata of all, then the small ones: as many as possible are carried, and the others reserve chunks.
#[test]
fn everybody_is_charged_the_small_ones_first() {
    let holding = |entries: u64| {
        let mut state = ReplicaState { exists: true, last: entries, ..ReplicaState::default() };
        state.places.push(1, (0..entries).map(|i| Loc::new(SEGMENT + i * 200, 100)), 16 << 10);
        state
    };
    let mut states: HashMap<u64, ReplicaState> = (1..=4).zip([0, 3, 30, 3].map(holding)).collect();
    let meta: u64 = states.values().map(ReplicaState::meta_bytes).sum();
    let small: u64 = states[&2].places.journal_bytes() + states[&4].places.journal_bytes();
    let large = states[&3].places.journal_bytes();
    // Three quarters of it are for those that are carried: the small two fit, and the larger one beside them does not.
    let budget = |all: u64| Accounts::new(16 << 10, SEGMENT, 50, (6, 6)).with_budget(all.div_ceil(3) * 4);
    let mut accounts = budget(meta + small + large - 3);
    with_cells(&mut states, |cells| charge(&mut accounts, cells, (2, 4), 0));
    let chunks: Vec<u64> = (1..=4).map(|id| states[&id].charge.chunks).collect();
    assert_eq!((chunks, accounts.reserved()), (vec![0, 0, 1, 0], 1));
    assert_eq!(accounts.carried(), states.values().map(|s| s.charge.carried).sum::<u64>());
    assert!((1..=4).all(|id| states[&id].charge.carried >= states[&id].meta_bytes()));
    let mut roomy = budget(meta + small + large);
    states.values_mut().for_each(|s| s.charge = Default::default());
    with_cells(&mut states, |cells| charge(&mut roomy, cells, (2, 4), 0));
    assert_eq!((roomy.reserved(), roomy.carried()), (0, meta + small + large), "all of them are carried");
}

/// The smallest are carried as far as the free segments suffice to clean them; the others reserve chunks as far as there are any.
#[test]
fn what_the_cleaner_has_no_segments_for_is_charged_chunks_as_far_as_there_are_any() {
    let holding = |entries: u64| {
        let mut state = ReplicaState { exists: true, last: entries, ..ReplicaState::default() };
        state.places.push(1, (0..entries).map(|i| Loc::new(SEGMENT + i * 1000, 900)), 64 << 10);
        state
    };
    let mut states: HashMap<u64, ReplicaState> = (1..=40).map(|n| (n, holding(n % 10 + 2))).collect();
    let all: u64 = states.values().map(|s| s.meta_bytes() + s.places.journal_bytes()).sum();
    let mut charged = |free, chunks| {
        states.values_mut().for_each(|s| s.charge = Default::default());
        let mut accounts = Accounts::new(64 << 10, 64 << 10, 50, (400, 400));
        with_cells(&mut states, |cells| charge(&mut accounts, cells, (free, chunks), 0));
        assert_eq!(accounts.carried(), states.values().map(|s| s.charge.carried).sum::<u64>());
        let smallest = states.values().filter(|s| s.charge.chunks > 0).map(|s| s.last).min();
        let largest = states.values().filter(|s| s.charge.chunks == 0).map(|s| s.last).max();
        assert!(smallest.is_none() || smallest >= largest, "the largest are settled");
        (accounts.is_covered(free), accounts.reserved(), accounts.carried())
    };
    let (covered, reserved, carried) = charged(6, 100);
    assert_eq!((covered, reserved, carried), (true, 0, all), "there are enough");
    let (covered, reserved, carried) = charged(2, 100);
    assert!(covered && reserved > 0 && reserved < 40 && carried < all, "{reserved} reserved, {carried} carried");
    assert_eq!(charged(2, reserved), (true, reserved, carried), "no more than that");
    let (covered, some, _) = charged(2, reserved - 1);
    assert_eq!((covered, some), (false, reserved - 1), "and all that there is");
}

/// A lost truncation names space that is somebody else's by now. An image that names all of it again and again is not accounted without end.
#[test]
fn pieces_that_name_the_space_there_is_many_times_are_too_many() {
    let geo = Geometry::new(&superblock());
    let piece = small(1, 1, 7);
    let of = |times: u64, of_values: bool| {
        let whole = Extent { block: 0, blocks: geo.pool_blocks };
        let cells = (0..times).map(|id| {
            let mut state = ReplicaState { exists: true, ..ReplicaState::default() };
            if of_values {
                let desc = PieceDesc { terms: TermRuns::new(), ..piece.at(smallvec![whole]) };
                state.keys.put_out(b"k", ChainPiece { desc, meta_seq: 1, mem: None }, 1, &mut Vec::new());
            } else {
                link(&mut state, &piece, 7, 1, whole);
            }
            Arc::new(Cell::new(id, state))
        });
        is_bounded(&geo, &cells.collect::<Vec<_>>())
    };
    for of_values in [false, true] {
        assert!(of(0, of_values) && of(2, of_values) && of(8, of_values) && !of(9, of_values));
    }
}
