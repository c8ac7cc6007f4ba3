//! What a snapshot may say of a replica, and what not: each bound from both sides, in snapshots made by hand. And whatever a replica may
//! look like is read back as it was written.

use super::codec::{EACH, Head, KIND_BITS, ONE, SAME};
use super::decode::Decoder;
use super::encode::Encoder;
use super::load::load;
use super::longest;
use crate::disk::BLOCK;
use crate::disk::sim::SimDisk;
use crate::engine::Geometry;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, LAST_LSN, LAST_SESSION};
use crate::format::piece::{Extent, PieceDesc};
use crate::format::record::MAX_DAMAGE_RANGES;
use crate::format::superblock::{Snapshot, Superblock};
use crate::format::varint;
use crate::index::{ChainPiece, Loc, MAX_JOURNAL_LEAP, ReplicaState};
use crate::options::Options;
use smallvec::smallvec;

const SEGMENT: u64 = 64 << 10;
const CHUNK: u32 = 4096;
/// The live segments: what is said of a replica counts from the first of them, and one number is missing.
const LIVE: [u64; 3] = [5, 6, 8];
const SESSION: u64 = 3 << 32 | 9;
/// An entry's checksum.
const CRC: u64 = 4;
/// The first byte of a payload in a segment.
const FRONT: u64 = FRAME_HEADER_BYTES as u64;

fn superblock() -> Superblock {
    Options::default().chunk_size(CHUNK).segment_size(SEGMENT as u32).geometry([1; 16], 4 << 20).expect("sound")
}

/// The last frame: the third block of the newest segment.
fn last() -> FrameHeader {
    let lsn = LIVE[2] * SEGMENT + 2 * BLOCK as u64;
    FrameHeader { lsn, session: SESSION, blocks: 1, watermark: lsn, tail_seq: LIVE[0], ..FrameHeader::default() }
}

fn head() -> Head {
    let slabs = superblock().journal_slabs;
    let segments = LIVE.into_iter().zip([slabs[3], slabs[0], slabs[5]]).collect();
    Head { last: last(), participants: vec![7, 70_000], session: SESSION, next_seq: LIVE[2] + 1, segments }
}

fn encoded(head: &Head, replicas: usize) -> Vec<u8> {
    let mut out = Vec::new();
    head.clone().encode(superblock().seed(), replicas, &mut out);
    out
}

fn decoded_head(head: &Head, lsn: u64) -> Option<Head> {
    let (sb, bytes) = (superblock(), encoded(head, 0));
    Decoder::new(&bytes, &Geometry::new(&sb), &sb, lsn).map(|decoder| decoder.head)
}

#[test]
fn a_head_is_read_back_and_refused_where_it_contradicts_its_superblock_or_itself() {
    let read = |change: &dyn Fn(&mut Head)| {
        let mut head = head();
        change(&mut head);
        decoded_head(&head, last().lsn).is_some_and(|read| read == head)
    };
    assert!(read(&|_| ()));
    assert!(read(&|h| h.session += 1 << 32), "nothing was written in the last session");
    assert!(!read(&|h| h.session -= 1), "an earlier session than its last frame's");
    assert!(read(&|h| h.session = LAST_SESSION) && !read(&|h| h.session = LAST_SESSION + 1));
    assert!(!read(&|h| h.next_seq = LIVE[2]), "a number that was given");
    let leap = LIVE[0] + MAX_JOURNAL_LEAP / SEGMENT;
    assert!(
        read(&|h| h.next_seq = leap) && !read(&|h| h.next_seq = leap + 1),
        "what comes next is far from what is alive"
    );
    assert!(!read(&|h| h.next_seq = LAST_LSN / SEGMENT + 1));
    assert!(!read(&|h| h.segments[1].1 = h.segments[0].1), "one slab twice");
    assert!(
        !read(&|h| h.segments[1].1 = *superblock().journal_slabs.iter().max().expect("some") + 1),
        "a chain's slab"
    );
    assert!(!read(&|h| h.segments[1].0 = LIVE[0]), "one segment twice");
    assert!(!read(&|h| _ = h.segments.remove(0)), "it does not begin with the tail");
    assert!(!read(&|h| _ = h.segments.pop()), "it does not end with the last frame's segment");
    assert!(!read(&|h| h.segments.clear()));
    assert!(read(&|h| _ = h.segments.remove(1)), "what is live is what it says");
    // The superblock names another frame: of another segment, or another place.
    assert_eq!([SEGMENT, BLOCK as u64].map(|off| decoded_head(&head(), self::last().lsn - off)), [None, None]);
}

/// No log was ever durable further than to where it ends.
#[test]
fn a_head_is_refused_where_the_log_was_durable_further_than_it_says() {
    let bytes = encoded(&head(), 0);
    let read = |durable: u64| {
        let sb = Superblock { durable, ..superblock() };
        Decoder::new(&bytes, &Geometry::new(&sb), &sb, last().lsn).is_some()
    };
    let end = last().lsn + BLOCK as u64;
    assert!(read(0) && read(end) && !read(end + 1) && !read(1 << 40));
}

/// A run of entries as it is written.
#[derive(Clone)]
struct Run {
    n: u64,
    kind: u64,
    /// Where it begins, behind the end of the one before.
    gap: i64,
    lens: Vec<u64>,
}

/// What a snapshot says of a replica.
#[derive(Clone)]
struct Said {
    id_gap: u64,
    first: u64,
    entries: u64,
    core: u64,
    suspect: u8,
    damaged: Vec<(u64, u64)>,
    terms: Vec<(u64, u64)>,
    pieces: Vec<PieceDesc>,
    spans: Vec<(u64, u64, Vec<Run>)>,
}

impl Said {
    /// Ten entries from index 2 on, of which nothing is said but what is given.
    fn of(spans: Vec<(u64, u64, Vec<Run>)>, damaged: Vec<(u64, u64)>) -> Self {
        let terms = vec![(2, 1)];
        Self { id_gap: 7, first: 2, entries: 10, core: 0, suspect: 0, damaged, terms, pieces: Vec::new(), spans }
    }

    /// All of them side by side in the oldest segment, empty.
    fn whole() -> Self {
        Self::of(vec![(0, 10, vec![Run { n: 10, kind: SAME, gap: FRONT as i64, lens: Vec::new() }])], Vec::new())
    }

    /// Known to be damaged, all of them.
    fn damaged() -> Self {
        Self::of(Vec::new(), vec![(2, 11)])
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let int = varint::encode;
        int(self.id_gap, out);
        out.extend_from_slice(&77_u64.to_le_bytes());
        [self.first, self.entries, 1].into_iter().for_each(|n| int(n, out));
        out.extend_from_slice(&13_u16.to_le_bytes());
        int(self.core, out);
        out.push(self.suspect);
        for pairs in [&self.damaged, &self.terms] {
            int(pairs.len() as u64, out);
            pairs.iter().flat_map(|&(a, b)| [a, b]).for_each(|n| int(n, out));
        }
        int(self.pieces.len() as u64, out);
        for piece in &self.pieces {
            int(0, out);
            piece.encode(out);
        }
        int(self.spans.len() as u64, out);
        for (gap, entries, runs) in &self.spans {
            [*gap, *entries].into_iter().for_each(|n| int(n, out));
            for run in runs {
                int(run.n << KIND_BITS | run.kind, out);
                int((run.gap << 1 ^ run.gap >> 63) as u64, out);
                run.lens.iter().for_each(|&len| int(len, out));
            }
        }
        // No keys.
        int(0, out);
    }

    fn is_believed(&self) -> bool {
        decode(std::slice::from_ref(self)).is_some()
    }
}

fn bytes(replicas: &[Said]) -> Vec<u8> {
    let mut out = encoded(&head(), replicas.len());
    replicas.iter().for_each(|said| said.encode(&mut out));
    out
}

/// The replicas of a snapshot, if it is believed.
fn decode(replicas: &[Said]) -> Option<Vec<(u64, ReplicaState)>> {
    decode_bytes(&bytes(replicas))
}

fn decode_bytes(bytes: &[u8]) -> Option<Vec<(u64, ReplicaState)>> {
    let sb = superblock();
    let mut decoder = Decoder::new(bytes, &Geometry::new(&sb), &sb, last().lsn).expect("its head is whole");
    let replicas: Option<Vec<_>> = (0..decoder.left).map(|_| decoder.replica()).collect();
    replicas.filter(|_| decoder.is_done())
}

#[test]
fn replicas_come_in_order_none_twice_each_suspect_or_not() {
    let said = |id_gap, suspect| Said { id_gap, suspect, ..Said::damaged() };
    let read = |replicas: &[Said]| {
        decode(replicas).map(|all| all.iter().map(|(id, state)| (*id, state.state_suspect)).collect::<Vec<_>>())
    };
    assert_eq!(read(&[said(0, 0), said(1, 1)]), Some(vec![(0, false), (1, true)]));
    assert_eq!(read(&[said(7, 0), said(0, 0)]), None, "one twice");
    assert_eq!(read(&[said(1, 0), said(u64::MAX, 0)]), None, "beyond all");
    assert_eq!(read(&[said(7, 2)]), None);
}

#[test]
fn damage_is_said_in_order_within_the_replica_and_of_no_more_ranges_than_a_core_has() {
    let read = |damaged: &[(u64, u64)]| {
        let damaged = damaged.to_vec();
        decode(&[Said { damaged: damaged.clone(), ..Said::whole() }]).is_some_and(|all| *all[0].1.damaged == damaged)
    };
    assert!(read(&[(2, 2), (3, 11)]) && read(&[(2, 11)]));
    assert!(read(&[(1, 11)]), "with the entry before the first, of which the term is asked");
    assert!(!read(&[(2, 3), (3, 5)]) && !read(&[(4, 5), (2, 3)]), "ascending");
    assert!(!read(&[(5, 4)]), "no range");
    assert!(!read(&[(0, 3)]) && !read(&[(8, 12)]), "beyond the replica's entries");
    let many = |n: usize| {
        let damaged = (0..n as u64).map(|i| (2 + i, 2 + i)).collect();
        Said { damaged, entries: 40, ..Said::of(vec![(0, 40, vec![Run { n: 40, ..run() }])], Vec::new()) }
    };
    assert!(many(MAX_DAMAGE_RANGES).is_believed() && !many(MAX_DAMAGE_RANGES + 1).is_believed());
    assert!(many(1).is_believed());
}

#[test]
fn terms_begin_at_indexes_that_ascend() {
    let read = |terms: &[(u64, u64)]| {
        let all = decode(&[Said { terms: terms.to_vec(), ..Said::whole() }])?;
        Some(all[0].1.terms.iter().collect::<Vec<_>>())
    };
    assert_eq!(read(&[(2, 1), (3, 4)]), Some(vec![(2, 1), (5, 4)]));
    assert_eq!(
        read(&[(0, 1), (1, 2), (1, 3), (8, 4), (2, 5)]),
        Some(vec![(2, 3), (10, 4)]),
        "clipped to what there is"
    );
    assert_eq!(read(&[(2, 1), (0, 4)]), None, "two at one index");
    assert_eq!(read(&[(2, 1), (u64::MAX, 4)]), None);
}

/// A piece that holds these entries.
fn piece(first: u64, count: u32) -> PieceDesc {
    let extents = vec![Extent { block: 100, blocks: 1 }];
    PieceDesc {
        id: 100 + first,
        first,
        count,
        slots: count.max(2),
        bare: false,
        bytes: 500,
        crc: 5,
        terms: smallvec![],
        extents: extents.into(),
    }
}

#[test]
fn pieces_hold_entries_of_the_replica_in_order_and_tell_no_terms() {
    let read = |pieces: &[PieceDesc]| {
        let said = Said { pieces: pieces.to_vec(), ..Said::damaged() };
        decode(&[said]).map(|all| all[0].1.places.chain().iter().map(|p| p.desc.clone()).collect::<Vec<_>>())
    };
    for good in [vec![piece(2, 10)], vec![piece(1, 2), piece(3, 4), piece(7, 5)], vec![piece(11, 1)]] {
        assert_eq!(read(&good).as_deref(), Some(&good[..]));
    }
    for (what, bad) in [
        ("none of its entries is left", vec![piece(3, 0)]),
        ("it tells terms", vec![PieceDesc { terms: smallvec![(1, 1)], ..piece(3, 1) }]),
        ("one twice", vec![piece(3, 1), piece(3, 1)]),
        ("one behind the other", vec![piece(7, 1), piece(3, 1)]),
        ("two of one index", vec![piece(3, 3), piece(5, 3)]),
        ("truncated", vec![piece(1, 1)]),
        ("beyond the last entry", vec![piece(10, 3)]),
    ] {
        assert_eq!(read(&bad), None, "{what}");
    }
}

/// One empty entry at the front of the oldest segment.
fn run() -> Run {
    Run { n: 1, kind: SAME, gap: FRONT as i64, lens: Vec::new() }
}

/// Where the entries of a replica lie, and how long they are.
fn locs(state: &ReplicaState) -> Vec<(u64, u32)> {
    let head = last().end();
    state.places.spans().iter().flat_map(|s| s.locs()).map(|loc| (loc.lsn(head), loc.len())).collect()
}

#[test]
fn a_run_is_where_it_says_in_each_way_of_saying_it() {
    let start = LIVE[1] * SEGMENT + FRONT;
    let runs = vec![
        Run { n: 3, kind: ONE, gap: (SEGMENT + FRONT) as i64, lens: vec![10] },
        Run { n: 3, kind: EACH, gap: 1, lens: vec![7, 0, 30] },
        Run { n: 2, kind: SAME, gap: 0, lens: Vec::new() },
        // What was moved lies behind what was not.
        Run { n: 2, kind: SAME, gap: -(3 * 14 + 1 + 49 + 68) - SEGMENT as i64, lens: Vec::new() },
    ];
    let all = decode(&[Said::of(vec![(0, 10, runs)], Vec::new())]).expect("believed");
    let each = start + 3 * 14 + 1;
    let same = each + 49;
    let moved = LIVE[0] * SEGMENT + FRONT;
    let is = [
        vec![(start, 10), (start + 14, 10), (start + 28, 10)],
        vec![(each, 7), (each + 11, 0), (each + 15, 30)],
        vec![(same, 30), (same + 34, 30), (moved, 30), (moved + 34, 30)],
    ];
    assert_eq!(locs(&all[0].1), is.concat());
}

#[test]
fn a_run_has_entries_no_more_than_its_span_and_lies_in_one_segment_behind_a_header_and_before_the_end() {
    let one = |runs: Vec<Run>| Said { entries: 1, ..Said::of(vec![(0, 1, runs)], Vec::new()) }.is_believed();
    assert!(one(vec![run()]));
    assert!(!one(vec![Run { n: 0, ..run() }, Run { gap: 0, ..run() }]), "of no entries");
    assert!(!one(vec![Run { n: 2, ..run() }]), "of more than the span has");
    assert!(!one(vec![Run { gap: FRONT as i64 - 1, ..run() }]), "where a header is");
    assert!(!one(vec![Run { gap: -1, ..run() }]), "in a segment that is not live");
    // To the end of its segment, and a byte beyond.
    let long = |kind, n: u64, len: u64| {
        let lens = vec![len; if kind == EACH { n as usize } else { 1 }];
        Said { entries: n, ..Said::of(vec![(0, n, vec![Run { n, kind, lens, ..run() }])], Vec::new()) }.is_believed()
    };
    let room = SEGMENT - FRONT;
    for kind in [ONE, EACH] {
        assert!(long(kind, 1, room - CRC) && !long(kind, 1, room - CRC + 1), "{kind}");
        assert!(long(kind, 2, room / 2 - CRC) && !long(kind, 2, room / 2 - CRC + 1), "{kind}");
    }
    // To the end of the log, and a byte beyond.
    let newest = (LIVE[2] - LIVE[0]) * SEGMENT;
    let at = |from_end: u64| last().end() - LIVE[2] * SEGMENT - from_end;
    for (len, believed) in [(100, true), (101, false)] {
        let gap = (newest + at(CRC + 100)) as i64;
        assert_eq!(one(vec![Run { kind: ONE, gap, lens: vec![len], ..run() }]), believed, "{len}");
    }
    assert!(!one(vec![Run { gap: (newest + FRONT) as i64 - 1, ..run() }]), "where the newest segment's header is");
    assert!(one(vec![Run { gap: (newest + FRONT) as i64, ..run() }]));
}

#[test]
fn every_entry_has_one_place_or_is_known_to_be_damaged() {
    let span = |gap, n| (gap, n, vec![Run { n, ..run() }]);
    // Spans are counted from the end of the one before; runs lie anywhere.
    let said = |spans: &[(u64, u64)], pieces: &[(u64, u32)], damaged: &[(u64, u64)]| {
        let mut behind = FRONT as i64;
        let spans = spans.iter().map(|&(gap, n)| {
            let mut span = span(gap, n);
            span.2[0].gap = std::mem::take(&mut behind);
            span
        });
        let pieces = pieces.iter().map(|&(first, n)| piece(first, n)).collect();
        Said { pieces, ..Said::of(spans.collect(), damaged.to_vec()) }.is_believed()
    };
    assert!(said(&[(0, 10)], &[], &[]) && said(&[], &[(2, 10)], &[]) && said(&[], &[(1, 11)], &[]));
    // Spans and pieces by turns: index 2, 3 and 4, 5, 6 to 8, 9 to 11.
    assert!(said(&[(0, 1), (2, 1), (3, 3)], &[(3, 2), (6, 3)], &[]));
    assert!(said(&[(2, 1), (4, 3)], &[(2, 2), (5, 1), (6, 2)], &[(8, 8)]));
    for (spans, pieces) in [
        (&[(0, 10)][..], &[(2, 1)][..]),
        (&[(0, 10)], &[(11, 1)]),
        (&[(0, 2), (1, 7)], &[(3, 2)]),
        (&[(0, 5)], &[(6, 6)]),
    ] {
        assert!(!said(spans, pieces, &[]), "two places: {spans:?} {pieces:?}");
    }
    // A hole at the beginning, between, and at the end: damaged from its first entry to its last.
    for (spans, hole) in [(&[(3, 7)][..], (2, 4)), (&[(0, 2), (3, 5)], (4, 6)), (&[(0, 7)], (9, 11))] {
        let (low, high) = hole;
        assert!(!said(spans, &[], &[]), "{hole:?}");
        assert!(said(spans, &[], &[hole]), "{hole:?}");
        assert!(!said(spans, &[], &[(low + 1, high)]) && !said(spans, &[], &[(low, high - 1)]), "{hole:?}");
        assert!(said(spans, &[], &[(low.max(3) - 1, 11)]), "more may be damaged than is missing");
    }
    assert!(!said(&[(0, 2), (3, 5)], &[], &[(9, 10)]), "another place");
}

#[test]
fn no_count_takes_more_memory_than_there_are_bytes_that_could_bear_it_out() {
    let most = |replicas: u64, behind: usize| {
        let sb = superblock();
        let mut bytes = Vec::new();
        head().encode(sb.seed(), usize::try_from(replicas).expect("64 bits"), &mut bytes);
        bytes.resize(bytes.len() + behind, 0);
        Decoder::new(&bytes, &Geometry::new(&sb), &sb, last().lsn).expect("its head is whole").most()
    };
    assert_eq!([most(3, 1000), most(u64::MAX, 1000), most(u64::MAX, 19)], [3, 50, 0]);
    assert_eq!(
        longest(&Geometry::new(&superblock()), &superblock()),
        superblock().journal_slabs.len() as u64 * SEGMENT
    );
}

/// A replica with everything a replica may have.
fn full() -> ReplicaState {
    let mut state = ReplicaState {
        exists: true,
        incarnation: u64::MAX - 3,
        first: 11,
        last: 30,
        prev_term: 4,
        seq: 60_000,
        core_seq: LIVE[1],
        // It has something in the newest segment.
        listed_frame: LIVE[2] * SEGMENT,
        state_suspect: true,
        damaged: vec![(13, 13), (20, 21)].into(),
        ..ReplicaState::default()
    };
    [(11, 5), (15, 6), (16, 9)].into_iter().for_each(|(index, term)| state.terms.push(index, term));
    let chain = |desc, meta_seq| ChainPiece { desc, meta_seq, mem: None };
    assert!(state.places.set_chain(chain(piece(10, 2), LIVE[0]), CHUNK));
    assert!(state.places.set_chain(chain(piece(22, 3), LIVE[2]), CHUNK));
    let at = |seq: u64, within: u64, len: u32| Loc::new(seq * SEGMENT + within, len);
    // 12: alone. 14 to 19: three side by side of one length, one of the same elsewhere, two side by side that differ, in front of those.
    state.places.push(12, [at(LIVE[1], 5000, 60)], CHUNK);
    let several = [
        at(LIVE[1], 3000, 60),
        at(LIVE[1], 3064, 60),
        at(LIVE[1], 3128, 60),
        at(LIVE[1], 6001, 60),
        at(LIVE[0], FRONT, 1),
        at(LIVE[0], FRONT + 5, 0),
    ];
    state.places.push(14, several, CHUNK);
    state.places.push(25, (0..6).map(|i| at(LIVE[2], FRONT + 9 * i, 5)), CHUNK);
    let mut gone = Vec::new();
    state.keys.put(b"state", b"voted", LIVE[0], &mut gone);
    state.keys.put(b"", b"", LIVE[2], &mut gone);
    let large = PieceDesc { terms: smallvec![(1, 0)], ..piece(1, 1) };
    state.keys.put_out(b"large", chain(large, LIVE[1]), LIVE[1], &mut gone);
    state
}

/// A full replica, an empty and a damaged one: how they are written, and read back.
#[test]
fn what_was_written_of_a_replica_is_read_back_in_all_it_has() {
    let empty = || ReplicaState { exists: true, core_seq: LIVE[0], ..ReplicaState::default() };
    let lost = || ReplicaState { last: 3, damaged: vec![(1, 3)].into(), ..empty() };
    let all = || [(0, empty()), (7, full()), (70_000, lost()), (u64::MAX, full())];
    let mut out = encoded(&head(), all().len());
    let mut encoder = Encoder::new(&mut out, last().end(), SEGMENT, (LIVE[0], LIVE[2]));
    for (id, state) in &all() {
        encoder.replica(*id, state).expect("all of it is in live segments");
    }
    assert_eq!(encoder.bytes(), out.len() as u64);
    let read = decode_bytes(&out).expect("believed");
    for ((id, is), (was_id, was)) in read.iter().zip(&all()) {
        assert_eq!((id, format!("{is:#?}")), (was_id, format!("{was:#?}")));
        assert_eq!(locs(is), locs(was));
    }
    assert_eq!(read.len(), all().len());
}

#[test]
fn what_no_live_segment_holds_is_not_written() {
    let written = |change: &dyn Fn(&mut ReplicaState)| {
        let mut state = full();
        change(&mut state);
        Encoder::new(&mut Vec::new(), last().end(), SEGMENT, (LIVE[0], LIVE[2])).replica(7, &state).is_some()
    };
    assert!(written(&|_| ()));
    for seq in [LIVE[0] - 1, LIVE[2] + 1] {
        assert!(!written(&|state| state.core_seq = seq), "{seq}");
        assert!(!written(&|state| state.keys.put(b"state", b"voted", seq, &mut Vec::new())), "{seq}");
        let piece = |seq| ChainPiece { desc: piece(22, 3), meta_seq: seq, mem: None };
        assert!(!written(&|state| assert!(state.places.set_chain(piece(seq), CHUNK))), "{seq}");
    }
}

/// An idle replica costs few bytes: lengths are said once where they are one, and not at all where they are those of before.
#[test]
fn lengths_that_do_not_change_are_said_once() {
    let size = |lens: &[u32]| {
        let mut state = ReplicaState { exists: true, core_seq: LIVE[0], last: lens.len() as u64, ..Default::default() };
        // Side by side.
        let mut at = LIVE[0] * SEGMENT + FRONT;
        let locs = lens.iter().map(|&len| {
            let loc = Loc::new(at, len);
            at += CRC + u64::from(len);
            loc
        });
        state.places.push(1, locs.collect::<Vec<_>>(), CHUNK);
        let mut out = Vec::new();
        Encoder::new(&mut out, last().end(), SEGMENT, (LIVE[0], LIVE[2])).replica(7, &state).expect("live");
        out.len()
    };
    assert_eq!(size(&[0; 9]) + 1, size(&[3; 9]), "before the first they count as empty");
    assert_eq!(size(&[3; 9]), size(&[3]), "one length for all of them");
    assert_eq!(size(&[3, 3, 3, 2]), size(&[3; 4]) + 3, "four lengths");
}

/// There is nothing behind it to be looked at.
#[test]
fn a_last_frame_may_end_where_the_file_does() {
    let sb = Superblock { journal_slabs: (1..=6).collect(), ..superblock() };
    let disk = SimDisk::new(sb.slab_offset(6) + SEGMENT);
    let front = FrameHeader { lsn: LIVE[0] * SEGMENT, watermark: 0, tail_seq: LIVE[0], ..last() };
    let last = FrameHeader { lsn: front.lsn + SEGMENT - BLOCK as u64, ..front };
    for header in [front, last] {
        let mut block = vec![0; BLOCK];
        header.encode(sb.seed(), &mut block);
        disk.poke(sb.slab_offset(6) + header.lsn - front.lsn, &block);
    }
    let segments = vec![(LIVE[0], 6)];
    let mut head = Head { last, participants: Vec::new(), session: SESSION, next_seq: LIVE[0] + 1, segments };
    let mut bytes = Vec::new();
    head.encode(sb.seed(), 0, &mut bytes);
    let extent = Extent { block: 0, blocks: 1 };
    disk.poke(extent.offset(), &bytes);
    let crc = Snapshot::checksum(sb.seed(), sb.epoch, &bytes);
    let named = Snapshot { lsn: last.lsn, bytes: bytes.len() as u64, crc, extents: vec![extent] };
    let loaded = load(&disk, &Geometry::new(&sb), &sb, &named).expect("believed");
    assert_eq!((loaded.last, loaded.cells.len()), (last, 0));
}
