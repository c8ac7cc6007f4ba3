//! Replay, record by record: what each kind of loss leaves.

use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::replay::replay_in;
use super::scan::{Scan, SlabScan};
use super::walk::{Accepted, Before, Walk};
use crate::chain::{PackEntry, Packed, pack};
use crate::engine::Geometry;
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Participants};
use crate::format::piece::{Extent, Extents};
use crate::format::record::{self, Core, RunKind};
use crate::format::superblock::Superblock;
use crate::index::{Cell, Loc, MAX_INLINE_ENTRY, ReplicaState, Value};
use crate::journal::{LiveSegment, RESERVED_SEGMENTS, Segments};
use crate::options::{Options, RecoveryMode};
use crate::sync::Arc;

pub(super) const SEGMENT: u64 = 64 << 10;
pub(super) const CAPACITY: u64 = 4 << 20;
const ID: u64 = 7;
/// Too many to be listed.
const MANY: &[u64] = &[1, 2, 3];

pub(super) fn superblock() -> Superblock {
    Options::default().chunk_size(16 << 10).segment_size(SEGMENT as u32).geometry([1; 16], CAPACITY).expect("sound")
}

/// What a replay yields, with the states by replica id.
struct Replayed {
    states: HashMap<u64, ReplicaState>,
    participants: HashMap<u64, Vec<u64>>,
    last_participants: Vec<u64>,
    newly_hurt: HashSet<u64>,
    unnamed: bool,
    unsettled: Vec<(u64, Extents)>,
}

/// All of it as text, in a fixed order.
fn told(replayed: impl std::borrow::Borrow<Replayed>) -> String {
    let replayed = replayed.borrow();
    let sorted = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    let participants: BTreeMap<_, _> = replayed.participants.iter().map(|(s, ids)| (s, sorted(ids))).collect();
    let hurt: BTreeSet<_> = replayed.newly_hurt.iter().collect();
    let states: BTreeMap<_, _> = replayed.states.iter().collect();
    let last = sorted(&replayed.last_participants);
    format!("{states:?} {participants:?} {last:?} {hurt:?} {} {:?}", replayed.unnamed, replayed.unsettled)
}

/// Does something with cells of these states.
pub(super) fn with_cells(states: &mut HashMap<u64, ReplicaState>, what: impl FnOnce(&[Arc<Cell>])) {
    let cells: Vec<_> = states.drain().map(|(id, state)| Arc::new(Cell::new(id, state))).collect();
    what(&cells);
    states.extend(taken(&cells));
}

fn taken(cells: &[Arc<Cell>]) -> impl Iterator<Item = (u64, ReplicaState)> {
    cells.iter().map(|cell| (cell.id, std::mem::take(&mut *cell.lock())))
}

/// Frames as a walk would hand them on.
#[derive(Default)]
struct Log {
    frames: Vec<(Before, Vec<u8>)>,
    lost_at_end: bool,
    /// No watermark covers them.
    unsettled: bool,
    salvages: bool,
}

impl Log {
    /// A frame behind `before`, whose predecessor was `named`'s.
    fn frame(mut self, before: Before, named: &[u64], records: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut table = Vec::new();
        let limit = if named == MANY { 1 } else { 1000 };
        Participants::encode(&mut named.to_vec(), limit, &mut table);
        records(&mut table);
        self.frames.push((before, table));
        self
    }

    fn whole(self, records: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.frame(Before::Whole, &[], records)
    }

    fn replay(&self) -> Replayed {
        self.try_replay().expect("sound")
    }

    fn try_replay(&self) -> Result<Replayed> {
        let scan = Scan { slabs: Vec::new(), max_seq: 1, max_session: 1, disbelieved: Vec::new() };
        let accepted = self.frames.iter().enumerate().map(|(n, (before, table))| Accepted {
            header: FrameHeader {
                lsn: SEGMENT + n as u64 * 8192,
                blocks: 2,
                prev_blocks: 2,
                payload_bytes: 4000,
                table_bytes: table.len() as u32,
                ..FrameHeader::default()
            },
            table,
            before: *before,
            unsettled: self.unsettled,
        });
        let walk = Walk {
            accepted: accepted.collect(),
            lost: 0,
            lost_at_end: self.lost_at_end,
            dropped: 0,
            end: 2 * SEGMENT,
            watermark: 0,
            tail_seq: 1,
            last_seq: Some(1),
        };
        let in_parts = |parts| {
            let mode = if self.salvages { RecoveryMode::Salvage } else { RecoveryMode::TolerateTornTail };
            let replayed = replay_in(&Geometry::new(&superblock()), &scan, &walk, mode, parts)?;
            let mut ids: Vec<u64> = replayed.registry.all().iter().map(|cell| cell.id).collect();
            let states: HashMap<_, _> = taken(&replayed.cells).collect();
            ids.sort_unstable();
            ids.dedup();
            assert!(ids.len() == states.len() && ids.iter().all(|id| states.contains_key(id)));
            Ok(Replayed {
                states,
                participants: replayed.participants,
                last_participants: replayed.last_participants,
                newly_hurt: replayed.newly_hurt,
                unnamed: replayed.unnamed,
                unsettled: replayed.unsettled,
            })
        };
        let alone: Result<Replayed> = in_parts(1);
        // Divided among threads, the outcome is the same.
        for parts in 2..=4 {
            assert_eq!(
                in_parts(parts).map_or_else(|e| e.to_string(), told),
                match &alone {
                    Ok(replayed) => told(replayed),
                    Err(error) => error.to_string(),
                }
            );
        }
        alone
    }
}

fn core(first: u64, last: u64) -> Core {
    Core { incarnation: 1, first, prev_term: 0, last, fresh: false, state_suspect: false, damaged: Vec::new() }
}

fn born(out: &mut Vec<u8>, seq: u16, incarnation: u64) {
    record::encode_core(out, ID, seq, &Core { incarnation, fresh: true, ..core(1, 0) });
}

fn run(out: &mut Vec<u8>, kind: RunKind, seq: u16, indexes: std::ops::RangeInclusive<u64>) {
    let n = (indexes.end() - indexes.start() + 1) as usize;
    record::encode_run(out, kind, ID, seq, (*indexes.start(), 1), vec![20; n].into_iter());
}

/// Born, with entries 1 to 5 and a key.
fn life(out: &mut Vec<u8>) {
    born(out, 0, 1);
    run(out, RunKind::Append, 1, 1..=5);
    record::encode_put(out, ID, 2, b"vote", b"1");
}

fn damaged(replayed: &Replayed) -> (Vec<(u64, u64)>, bool, bool) {
    let state = &replayed.states[&ID];
    (state.damaged.to_vec(), state.state_suspect, replayed.newly_hurt.contains(&ID))
}

#[test]
fn a_whole_life_is_whole() {
    let replayed = Log::default().whole(life).whole(|t| run(t, RunKind::Append, 3, 6..=6)).replay();
    let state = &replayed.states[&ID];
    assert_eq!((state.first, state.last, state.seq, state.terms.get(6)), (1, 6, 4, Some(1)));
    assert!(state.keys.get(b"vote").is_some() && !replayed.unnamed);
    assert_eq!(damaged(&replayed), (vec![], false, false));
    // Each entry behind the last, in its own frame's payload.
    let loc = |frame: u64, n: u64| Some(Loc::new(SEGMENT + frame * 8192 + FRAME_HEADER_BYTES as u64 + n * 24, 20));
    let places: Vec<Option<Loc>> = (1..=7).map(|index| state.places.loc(index)).collect();
    assert_eq!(places, [loc(0, 0), loc(0, 1), loc(0, 2), loc(0, 3), loc(0, 4), loc(1, 0), None]);
}

#[test]
fn a_gap_in_the_numbers_puts_in_doubt_what_stood_before_it() {
    let replayed = Log::default().whole(life).whole(|t| run(t, RunKind::Append, 4, 6..=8)).replay();
    assert_eq!(damaged(&replayed), (vec![(1, 5)], true, true), "what was appended behind it is certain");
    let repeated = Log::default().whole(life).whole(|t| run(t, RunKind::Append, 2, 6..=8)).replay();
    assert_eq!(damaged(&repeated), (vec![(1, 5)], true, true), "a number that was there before is no better");
}

#[test]
fn a_new_life_keeps_nothing_of_the_one_before() {
    // The removal between them need not be there.
    let second = |t: &mut Vec<u8>| {
        born(t, 3, 2);
        run(t, RunKind::Append, 4, 1..=1);
    };
    let replayed = Log::default().whole(life).whole(second).replay();
    let state = &replayed.states[&ID];
    assert_eq!((state.first, state.last, state.incarnation), (1, 1, 2));
    assert!(state.keys.get(b"vote").is_none(), "a vote of the life before");
    assert_eq!(damaged(&replayed), (vec![], false, false));
    let after_loss = Log::default().whole(life).frame(Before::LostOne, &[ID], second).replay();
    assert_eq!(damaged(&after_loss), (vec![], false, false), "whatever was lost was not of this life");
}

#[test]
fn a_core_that_tells_of_a_loss_settles_it_and_no_other_does() {
    let said = |state_suspect, damaged: &[(u64, u64)]| Core { state_suspect, damaged: damaged.to_vec(), ..core(1, 5) };
    // Entries 1 to 5; a frame is lost; a CORE; 4 to 6 are appended anew.
    let replay = |before, core: &Core| {
        let anew = |t: &mut Vec<u8>| {
            record::encode_core(t, ID, 3, core);
            run(t, RunKind::Append, 4, 4..=6);
        };
        damaged(&Log::default().whole(life).frame(before, &[ID], anew).replay())
    };
    for told in [said(true, &[(1, 5)]), said(true, &[(1, 9)])] {
        assert_eq!(replay(Before::LostOne, &told), (vec![(1, 3)], true, false), "{told:?}");
    }
    for untold in
        [said(false, &[]), said(false, &[(1, 5)]), said(true, &[]), said(true, &[(2, 5)]), said(true, &[(1, 4)])]
    {
        assert_eq!(replay(Before::LostOne, &untold), (vec![(1, 5)], true, true), "{untold:?}");
        assert!(!replay(Before::Whole, &untold).2, "nothing is lost but what it tells of");
    }
    // A frame that is lost behind it is another loss.
    let told = |t: &mut Vec<u8>| record::encode_core(t, ID, 3, &said(true, &[(1, 5)]));
    let log = Log::default().whole(life).frame(Before::LostOne, &[ID], told);
    let log = log.frame(Before::LostOne, &[ID], |t| run(t, RunKind::Append, 4, 6..=6));
    assert_eq!(damaged(&log.replay()), (vec![(1, 5)], true, true));
}

#[test]
fn a_core_that_knows_another_end_is_a_sign_of_a_loss() {
    let replayed = Log::default().whole(life).whole(|t| record::encode_core(t, ID, 3, &core(1, 7))).replay();
    assert_eq!(damaged(&replayed), (vec![(1, 7)], true, true));
    let same = Log::default().whole(life).whole(|t| record::encode_core(t, ID, 3, &core(1, 5))).replay();
    assert_eq!(damaged(&same), (vec![], false, false));
}

#[test]
fn an_entry_that_is_held_nowhere_is_damage() {
    let carried = |t: &mut Vec<u8>| {
        record::encode_core(t, ID, 9, &core(1, 6));
        run(t, RunKind::Carried, 10, 1..=2);
        run(t, RunKind::Carried, 11, 4..=6);
    };
    let replayed = Log::default().whole(carried).replay();
    assert_eq!(damaged(&replayed), (vec![(3, 3)], false, true));
    let known = |t: &mut Vec<u8>| {
        record::encode_core(t, ID, 9, &Core { damaged: vec![(2, 4)], ..core(1, 6) });
        run(t, RunKind::Carried, 10, 1..=2);
        run(t, RunKind::Carried, 11, 4..=6);
    };
    assert_eq!(damaged(&Log::default().whole(known).replay()), (vec![(2, 4)], false, false), "nothing new");
}

#[test]
fn a_snapshot_clears_a_doubt_about_entries_and_none_about_keyed_state() {
    let reset = |t: &mut Vec<u8>| record::encode_reset(t, ID, 4, 101, 9);
    let replayed = Log::default().whole(life).frame(Before::LostOne, &[ID], reset).replay();
    let state = &replayed.states[&ID];
    assert_eq!((state.first, state.last, state.prev_term), (101, 100, 9));
    assert_eq!(damaged(&replayed), (vec![], true, true), "the vote in the lost frame is not known");
}

#[test]
fn a_carried_entry_cuts_nothing() {
    let replayed = Log::default().whole(life).whole(|t| run(t, RunKind::Carried, 3, 2..=3)).replay();
    assert_eq!((replayed.states[&ID].last, damaged(&replayed)), (5, (vec![], false, false)));
    let beyond = Log::default().whole(life).whole(|t| run(t, RunKind::Carried, 3, 6..=7)).replay();
    assert_eq!(damaged(&beyond), (vec![(1, 5)], true, true), "what brought 6 and 7 is missing");
}

#[test]
fn who_was_in_a_lost_frame_is_hurt_and_nobody_else_unless_more_may_be_lost() {
    let named = Log::default().whole(life).frame(Before::LostOne, &[3], |_| ()).replay();
    assert_eq!(damaged(&named), (vec![], false, false));
    assert!(named.states[&3].exists && named.states[&3].state_suspect, "known only by name");
    assert!(!named.unnamed);
    for (before, lost_at_end) in [(Before::LostSome, false), (Before::Whole, true)] {
        let mut log = Log::default().whole(life).frame(before, &[3], |_| ());
        log.lost_at_end = lost_at_end;
        let more = log.replay();
        assert!(more.unnamed, "{before:?}");
        assert_eq!(damaged(&more), (vec![(1, 5)], true, true), "{before:?}: it never spoke again");
    }
    let spoke =
        Log::default().whole(life).frame(Before::LostSome, &[3], |t| run(t, RunKind::Append, 3, 6..=6)).replay();
    assert_eq!(damaged(&spoke), (vec![], false, false), "its numbers go on");
}

pub(super) fn packed(owner: u64, entries: u64) -> Packed {
    let payload = [owner as u8; 3000];
    let entry = PackEntry { term: 1, payload: &payload, payload_crc: crc32c::crc32c(&payload), bulk: None };
    let entries: Vec<PackEntry<'_>> =
        (0..entries).map(|_| PackEntry { term: entry.term, payload: entry.payload, ..entry }).collect();
    let mut pieces = pack(superblock().seed(), owner, 1, &entries, 16 << 10, || owner * 1000);
    pieces.pop().expect("one piece")
}

/// Each opening that began with a fresh segment would take one of those that are kept for the cleaner.
#[test]
fn an_opening_goes_on_in_the_last_segment_when_a_fresh_one_cannot_be_spared() {
    let geo = Geometry::new(&superblock());
    let place = |free: u32, end: u64| {
        let live = LiveSegment { seq: 5, slab: 2, participants: Vec::new() };
        let segments =
            Segments { next_seq: 6, free: (10..10 + free).collect(), live: [live].into(), ..Segments::default() };
        super::in_place(&geo, &segments, end, RESERVED_SEGMENTS)
    };
    let end = 5 * SEGMENT + 8192;
    let rest = Some((end, crate::format::POOL_OFFSET + 2 * SEGMENT + 8192, SEGMENT - 8192));
    let spared = RESERVED_SEGMENTS as u32;
    assert_eq!([0, 1, spared].map(|free| place(free, end)), [rest; 3]);
    assert_eq!(place(spared + 1, end), None, "there are enough");
    assert_eq!(place(0, 6 * SEGMENT), None, "it is full to the brim");
}

#[test]
fn where_more_were_lost_than_are_listed_whoever_comes_next_is_in_doubt() {
    // Its first record here: it may have had others in what is lost.
    let first =
        |before, named: &[u64]| Log::default().frame(before, named, |t| run(t, RunKind::Append, 3, 6..=7)).replay();
    for (before, named) in [(Before::LostSome, &[3][..]), (Before::LostOne, MANY)] {
        let replayed = first(before, named);
        assert!(replayed.unnamed, "{before:?}");
        assert_eq!(damaged(&replayed), (vec![(5, 7)], true, true), "{before:?}: it has no CORE");
        let known = Log::default()
            .whole(life)
            .frame(before, named, |t| run(t, RunKind::Append, 3, 6..=6))
            .whole(|t| record::encode_core(t, 9, 4, &core(3, 2)))
            .replay();
        assert_eq!(damaged(&known), (vec![], false, false), "{before:?}: its numbers go on");
        assert!(known.states[&9].state_suspect, "{before:?}: this one cannot show that nothing is missing");
        let silent = Log::default().whole(life).frame(before, named, |_| ()).replay();
        assert_eq!(damaged(&silent), (vec![(1, 5)], true, true), "{before:?}: it never spoke again");
    }
    let listed = Log::default().frame(Before::LostOne, &[3], |t| record::encode_core(t, 9, 4, &core(3, 2))).replay();
    assert!(!listed.states[&9].state_suspect && !listed.unnamed, "all that was lost is listed");
}

#[test]
fn without_a_core_all_that_is_held_is_in_doubt() {
    let replayed = Log::default().whole(|t| run(t, RunKind::Append, 3, 6..=8)).replay();
    let state = &replayed.states[&ID];
    assert_eq!((state.first, state.last), (6, 8));
    assert_eq!(damaged(&replayed), (vec![(5, 8)], true, true), "and the term before the first of them");
    let key = Log::default()
        .whole(|t| {
            record::encode_core(t, ID, 0, &core(4, 3));
            record::encode_put(t, ID, 1, b"vote", b"1");
        })
        .replay();
    assert_eq!(damaged(&key), (vec![], false, false), "empty, and whole");
    let named = Log::default().frame(Before::LostOne, &[ID], |_| ()).replay();
    assert_eq!(damaged(&named), (vec![], true, true), "known by name, and by nothing else");
    assert_eq!((named.states[&ID].first, named.states[&ID].last), (1, 0));
    let gone = Log::default().whole(life).whole(|t| record::encode_remove(t, ID, 3)).replay();
    assert!(gone.states.is_empty(), "removed, and known to be");
    let lost_before = Log::default().frame(Before::LostOne, &[ID], |t| record::encode_remove(t, ID, 3)).replay();
    assert!(lost_before.states.is_empty(), "whatever was lost, it is removed now");
}

/// A region that left a store comes back to it: nobody else lists a replica that is gone.
#[test]
fn who_was_removed_and_is_named_by_a_lost_frame_began_anew_in_it() {
    let removed = || Log::default().whole(life).whole(|t| record::encode_remove(t, ID, 3));
    let anew = removed().frame(Before::LostOne, &[ID], |_| ()).replay();
    assert_eq!(damaged(&anew), (vec![], true, true), "its vote is lost, and that is said");
    let further = removed().frame(Before::LostOne, &[ID], |t| run(t, RunKind::Append, 9, 4..=5)).replay();
    assert_eq!(damaged(&further), (vec![(3, 5)], true, true), "and what it appended, and the term before");
    let gone = removed().frame(Before::LostOne, &[ID], |t| record::encode_remove(t, ID, 9)).replay();
    assert!(gone.states.is_empty(), "whatever was lost, it is removed now");
    let whole = removed().frame(Before::LostOne, &[ID], |t| born(t, 0, 7)).replay();
    let (entries, state, _) = damaged(&whole);
    assert_eq!((entries, state), (vec![], false), "nothing of what was lost counts in a new life");
}

#[test]
fn a_truncation_says_how_far_the_log_reached() {
    let truncated = |first| {
        let log = Log::default().whole(life).whole(|t| record::encode_truncate(t, ID, 3, first, Some(1)));
        let replayed = log.replay();
        let state = &replayed.states[&ID];
        (state.first, state.last, state.prev_term)
    };
    assert_eq!([truncated(3), truncated(6), truncated(9)], [(3, 5, 1), (6, 5, 1), (9, 8, 1)]);
}

/// The term that stands there is another entry's, or no entry's.
#[test]
fn the_term_before_a_first_index_that_is_only_guessed_is_unknown() {
    let term_before = |log: Log, first: u64| {
        let replayed = log.replay();
        let state = &replayed.states[&ID];
        assert_eq!(state.first, first);
        state.term(first - 1)
    };
    let held = || Log::default().whole(|t| run(t, RunKind::Append, 0, 5..=6));
    assert_eq!(term_before(held(), 5), None, "there is no CORE");
    let truncated = held().whole(|t| record::encode_truncate(t, ID, 1, 6, Some(3)));
    assert_eq!(term_before(truncated, 6), Some(3), "that a truncation says");
    let begun = Log::default().whole(|t| run(t, RunKind::Append, 0, 1..=2));
    assert_eq!(term_before(begun, 1), Some(0), "before the first entry of all there is none");
    let truncated = || Log::default().whole(life).whole(|t| record::encode_truncate(t, ID, 3, 4, Some(3)));
    let below = truncated().whole(|t| run(t, RunKind::Append, 4, 2..=2));
    assert_eq!(term_before(below, 2), None, "of another life");
    assert_eq!(term_before(truncated(), 4), Some(3));
    let blind = Log::default().whole(life).whole(|t| record::encode_truncate(t, ID, 3, 4, None));
    assert_eq!(term_before(blind, 4), None);
}

#[test]
fn a_replica_is_listed_once_a_frame_and_once_a_segment() {
    let log = Log::default().whole(life).whole(|t| {
        run(t, RunKind::Append, 3, 6..=6);
        record::encode_remove(t, ID, 4);
        born(t, 5, 2);
        record::encode_put(t, 3, 0, b"k", b"v");
    });
    let replayed = log.replay();
    assert_eq!(replayed.last_participants, [ID, 3]);
    assert_eq!(replayed.participants[&1], [ID, 3]);
    let last = Log::default().whole(life).whole(|t| record::encode_put(t, 3, 0, b"k", b"v")).replay();
    assert_eq!(last.last_participants, [3], "of the last frame");
}

#[test]
fn pieces_of_frames_that_no_watermark_covers_are_told() {
    let piece = packed(ID, 2);
    let at = |block| piece.at(smallvec![Extent { block, blocks: piece.blocks() }]);
    let records = |t: &mut Vec<u8>| {
        born(t, 0, 1);
        record::encode_pieces(t, RunKind::Append, ID, 1, &[at(200)]);
        record::encode_put_out(t, ID, 2, b"large", &at(300));
        record::encode_kept_out(t, ID, 3, b"larger", &at(400));
        record::encode_pieces(t, RunKind::Carried, ID, 4, &[at(400)]);
    };
    let mut log = Log::default().whole(records);
    assert_eq!(log.replay().unsettled, []);
    log.unsettled = true;
    let told: Vec<u32> = log.replay().unsettled.iter().map(|(_, extents)| extents[0].block).collect();
    assert_eq!(told, [200, 300], "what was settled or kept was durable before it was named");
}

#[test]
fn a_record_that_does_not_fit_its_frame_is_refused() {
    // 4,000 bytes of payload; each entry has a checksum of four.
    let with = |lens: Vec<u32>| {
        let log = Log::default().whole(|t| {
            born(t, 0, 1);
            record::encode_run(t, RunKind::Append, ID, 1, (1, 1), lens.into_iter());
        });
        log.try_replay().map(drop)
    };
    with(vec![1996, 1996]).expect("to the brim");
    for lens in [vec![1996, 1997], vec![MAX_INLINE_ENTRY + 1], vec![u32::MAX; 3]] {
        let error = with(lens.clone()).expect_err("beyond the frame");
        assert!(matches!(&error, Error::Corrupt { what, .. } if what.contains("does not fit")), "{lens:?}: {error}");
    }
}

/// A part that replays other replicas finds it as well: it is [`Log::replay`] that compares them.
#[test]
fn a_salvage_stops_at_a_record_that_makes_no_sense_whosever_it_is() {
    let others = [2, 3, 5, 8, 13, 21];
    let put = |t: &mut Vec<u8>, seq, value: &[u8]| {
        others.iter().for_each(|&id| record::encode_put(t, id, seq, b"vote", value))
    };
    let mut senseless = packed(ID, 2).at([Extent { block: 500, blocks: 1 }].into());
    senseless.first = 0;
    let log = Log { salvages: true, ..Log::default() }.whole(life).whole(|t| put(t, 0, b"before")).whole(|t| {
        record::encode_pieces(t, RunKind::Append, ID, 3, std::slice::from_ref(&senseless));
        put(t, 1, b"behind");
    });
    let replayed = log.replay();
    assert!(replayed.unnamed && replayed.states[&ID].state_suspect);
    for id in others {
        let value = replayed.states[&id].keys.get(b"vote");
        assert!(matches!(value, Some(Value::Inline(value)) if value == b"before"), "{id}: {value:?}");
    }
    assert!(Log { salvages: false, ..log }.try_replay().is_err());
}

#[test]
fn an_append_cuts_what_stands_above_it_and_terms_are_of_their_entries() {
    let overwritten = Log::default().whole(life).whole(|t| {
        record::encode_run(t, RunKind::Append, ID, 3, (3, 2), [20, 20].into_iter());
    });
    let replayed = overwritten.replay();
    let state = &replayed.states[&ID];
    assert_eq!((state.first, state.last), (1, 4));
    assert_eq!([1, 2, 3, 4].map(|i| state.terms.get(i)), [Some(1), Some(1), Some(2), Some(2)]);
    assert!(state.places.loc(5).is_none() && state.places.loc(4).is_some());
    assert_eq!(damaged(&replayed), (vec![], false, false));
    let healed = |t: &mut Vec<u8>| {
        record::encode_core(t, ID, 0, &Core { damaged: vec![(2, 3)], ..core(1, 3) });
        run(t, RunKind::Carried, 1, 1..=1);
        run(t, RunKind::Append, 2, 2..=2);
    };
    assert_eq!(damaged(&Log::default().whole(healed).replay()).0, [], "written anew");
    // Nothing is appended below the first: what lies between is missing.
    let below = Log::default()
        .whole(life)
        .whole(|t| record::encode_truncate(t, ID, 3, 4, Some(1)))
        .whole(|t| run(t, RunKind::Append, 4, 2..=2))
        .replay();
    assert_eq!((below.states[&ID].first, below.states[&ID].last), (2, 2));
    assert_eq!((damaged(&below).1, damaged(&below).2), (true, true));
    let carried = Log::default().whole(|t| {
        record::encode_core(t, ID, 0, &core(3, 7));
        record::encode_run(t, RunKind::Carried, ID, 1, (3, 5), [20, 20, 20].into_iter());
        record::encode_run(t, RunKind::Carried, ID, 2, (6, 8), [20, 20].into_iter());
    });
    let state = &carried.replay().states[&ID];
    let terms = [3, 4, 5, 6, 7].map(|i| state.terms.get(i));
    assert_eq!(terms, [Some(5), Some(5), Some(5), Some(8), Some(8)]);
}

#[test]
fn pieces_bring_their_places_and_terms_and_two_over_one_range_are_a_sign_of_a_loss() {
    let piece = packed(ID, 4);
    let desc = |id, first, terms: Vec<(u32, u64)>, block| {
        let mut desc = piece.at(smallvec![Extent { block, blocks: piece.blocks() }]);
        (desc.id, desc.first, desc.terms) = (id, first, terms.into());
        desc
    };
    let settled = |second: u64| {
        Log::default()
            .whole(|t| {
                record::encode_core(t, ID, 0, &core(1, 8));
                let pieces = [desc(50, 1, vec![(1, 3), (3, 5)], 200), desc(60, second, vec![(4, 6)], 300)];
                record::encode_pieces(t, RunKind::Carried, ID, 1, &pieces);
            })
            .replay()
    };
    let whole = settled(5);
    let state = &whole.states[&ID];
    assert_eq!(damaged(&whole), (vec![], false, false));
    assert_eq!([1, 2, 4, 5, 8].map(|i| state.terms.get(i)), [Some(3), Some(5), Some(5), Some(6), Some(6)]);
    assert_eq!(state.places.chain().iter().map(|p| p.desc.id).collect::<Vec<_>>(), [50, 60]);
    let overlapping = settled(3);
    assert!(!damaged(&overlapping).0.is_empty(), "something between them is missing");
    let placed = Log::default().whole(life).whole(|t| {
        record::encode_pieces(t, RunKind::Append, ID, 3, &[desc(50, 4, vec![(4, 9)], 200)]);
    });
    let state = &placed.replay().states[&ID];
    assert_eq!((state.last, state.terms.get(3), state.terms.get(4)), (7, Some(1), Some(9)));
    assert!(state.places.loc(4).is_none() && state.places.loc(3).is_some(), "it cuts, as every append");
}

/// What was not carried for long is named first, what was carried last lies among it: here from both ends inwards, so that they lie in trees for a while.
#[test]
fn many_pieces_and_terms_are_where_they_belong_in_whatever_order_they_are_named() {
    const N: u64 = 500;
    let piece = packed(ID, 1);
    let desc = |first: u64| {
        let mut desc = piece.at(smallvec![Extent { block: first as u32 % 900, blocks: piece.blocks() }]);
        (desc.id, desc.first, desc.terms) = (1000 + first, first, smallvec![(1, first)]);
        desc
    };
    let replayed = Log::default()
        .whole(|t| {
            record::encode_core(t, ID, 0, &core(3, N));
            let pieces: Vec<_> = (1..=N / 2).flat_map(|i| [i, N + 1 - i]).map(desc).collect();
            for (seq, pieces) in (1..).zip(pieces.chunks(100)) {
                record::encode_pieces(t, RunKind::Carried, ID, seq, pieces);
            }
        })
        .replay();
    let state = &replayed.states[&ID];
    assert_eq!(damaged(&replayed), (vec![], false, false));
    assert!(state.places.chain().iter().map(|p| p.desc.first).eq(3..=N));
    assert!((3..=N).all(|i| state.terms.get(i) == Some(i)) && state.terms.get(2).is_none());
}

#[test]
fn segments_from_the_tail_to_the_last_frame_are_alive_and_all_others_free() {
    let sb = Superblock { journal_slabs: vec![0, 1, 2, 3, 4], ..superblock() };
    let slab = |slab, seq| SlabScan { slab, seq, frames: Vec::new() };
    // Before the tail; the tail; the last; behind the last: a frame that was dropped. One slab holds nothing.
    let scan = Scan {
        slabs: vec![slab(3, 4), slab(1, 5), slab(0, 6), slab(4, 7)],
        max_seq: 7,
        max_session: 1,
        disbelieved: vec![],
    };
    let walk = Walk {
        accepted: Vec::new(),
        lost: 0,
        lost_at_end: false,
        dropped: 1,
        end: 7 * SEGMENT,
        watermark: 0,
        tail_seq: 5,
        last_seq: Some(6),
    };
    let listed = HashMap::from([(5, vec![7]), (7, vec![8])]);
    let live = super::live_segments(&scan, &walk, listed);
    let (segments, map) = super::segments(&sb, std::collections::VecDeque::new(), live, scan.max_seq + 1);
    let live: Vec<_> = segments.live.iter().map(|s| (s.seq, s.slab, s.participants.clone())).collect();
    assert_eq!(live, [(5, 1, vec![7]), (6, 0, vec![])]);
    assert_eq!(segments.free, [2, 3, 4]);
    assert_eq!(segments.next_seq, 8);
    assert_eq!((map.slab(4), map.slab(5), map.slab(6), map.slab(7)), (None, Some(1), Some(0), None));
}
