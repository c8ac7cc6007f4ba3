//! Walking, frame by frame: what a missing or unreadable frame makes of those around it.

use super::scan::{Found, Scan, SlabScan};
use super::walk::{Before, Walk, existing, walk};
use crate::chain::{PackEntry, Packed, pack};
use crate::disk::Disk;
use crate::disk::sim::{EIO, SimDisk};
use crate::engine::Geometry;
use crate::error::Result;
use crate::format::EntryId;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Participants};
use crate::format::piece::Extent;
use crate::format::record::{self, RunKind};
use crate::format::superblock::Superblock;
use crate::options::{Options, RecoveryMode};

const SEGMENT: u64 = 64 << 10;
const BLOCK: u64 = 4096;
const CAPACITY: u64 = 4 << 20;
/// The first live segment: not 1, so that a segment's number and its LSN are never taken for one another.
const TAIL: u64 = 3;

fn superblock() -> Superblock {
    Options::default().chunk_size(16 << 10).segment_size(SEGMENT as u32).geometry([1; 16], CAPACITY).expect("sound")
}

/// Where the frame with this number lies: one a block, from the first block of the tail on.
fn lsn(n: u64) -> u64 {
    TAIL * SEGMENT + n * BLOCK
}

/// Frames as a scan finds them, each behind the other.
struct Journal {
    frames: Vec<Found>,
    disbelieved: Vec<u64>,
    durable: u64,
    /// Where payloads and pieces lie.
    disk: SimDisk,
}

/// An entry of a payload: whose, its index, its term, its bytes.
type Entry<'a> = (u64, u64, u64, &'a [u8]);

impl Journal {
    /// So many frames, each sealed when all before it were durable.
    fn of(frames: u64) -> Self {
        let geo = Geometry::new(&superblock());
        let mut table = Vec::new();
        Participants::encode(&mut Vec::new(), 1000, &mut table);
        let mut found: Vec<Found> = Vec::new();
        for n in 0..frames {
            let prev = found.last().map(|f| f.header);
            let header = FrameHeader {
                lsn: lsn(n),
                session: 1,
                blocks: 1,
                prev_blocks: 1,
                prev_lsn: prev.map_or(lsn(0) - BLOCK, |p| p.lsn),
                prev_hash: prev.map_or(0, |p| p.hash(geo.seed)),
                prev_prev_hash: prev.map_or(0, |p| p.prev_hash),
                table_bytes: table.len() as u32,
                watermark: lsn(n),
                tail_seq: TAIL,
                ..FrameHeader::default()
            };
            found.push(Found { header, offset: n * BLOCK, table: Some(table.as_slice().into()) });
        }
        Self { frames: found, disbelieved: Vec::new(), durable: 0, disk: SimDisk::new(CAPACITY) }
    }

    fn without(mut self, n: u64) -> Self {
        self.frames.retain(|f| f.header.lsn != lsn(n));
        self
    }

    /// Its header can be read, and nothing else of it.
    fn unreadable(mut self, n: u64) -> Self {
        self.get(n).table = None;
        self
    }

    /// Sealed while everything from this frame on was still in flight.
    fn in_flight_from(mut self, first: u64) -> Self {
        for frame in &mut self.frames {
            frame.header.watermark = frame.header.watermark.min(lsn(first));
        }
        self
    }

    fn get(&mut self, n: u64) -> &mut Found {
        self.frames.iter_mut().find(|f| f.header.lsn == lsn(n)).expect("there")
    }

    /// Gives a frame a table, and these entries as its payload.
    fn filled(mut self, n: u64, entries: &[Entry<'_>], records: impl FnOnce(&mut Vec<u8>)) -> Self {
        let seed = Geometry::new(&superblock()).seed;
        let (mut payload, mut digest) = (Vec::new(), 0);
        for &(replica, index, term, bytes) in entries {
            let id = EntryId { replica, index, term, len: bytes.len() as u32 };
            let place = lsn(n) + (FRAME_HEADER_BYTES + payload.len()) as u64;
            let crc = seed.entry_crc(crc32c::crc32c(bytes), place, id).to_le_bytes();
            digest = crc32c::crc32c_append(digest, &crc);
            payload.extend_from_slice(&crc);
            payload.extend_from_slice(bytes);
        }
        let mut table = Vec::new();
        Participants::encode(&mut Vec::new(), 1000, &mut table);
        records(&mut table);
        self.disk.poke(n * BLOCK + FRAME_HEADER_BYTES as u64, &payload);
        let frame = self.get(n);
        frame.header.payload_bytes = payload.len() as u32;
        frame.header.payload_digest = digest;
        frame.header.table_bytes = table.len() as u32;
        frame.table = Some(table.into());
        self.linked()
    }

    /// Changes a frame's header or table.
    fn with(mut self, n: u64, change: impl FnOnce(&mut Found)) -> Self {
        change(self.get(n));
        self.linked()
    }

    /// Every frame knows its predecessor again.
    fn linked(mut self) -> Self {
        let seed = Geometry::new(&superblock()).seed;
        for n in 1..self.frames.len() {
            let prev = self.frames[n - 1].header;
            let header = &mut self.frames[n].header;
            (header.prev_hash, header.prev_prev_hash) = (prev.hash(seed), prev.prev_hash);
        }
        self
    }

    fn scan(&self) -> Scan {
        let mut slabs: Vec<SlabScan> = Vec::new();
        for frame in &self.frames {
            let seq = frame.header.lsn / SEGMENT;
            if slabs.last().is_none_or(|s| s.seq != seq) {
                slabs.push(SlabScan { slab: seq as u32, seq, frames: Vec::new() });
            }
            slabs.last_mut().expect("pushed").frames.push(frame.clone());
        }
        Scan { slabs, max_seq: TAIL + 1, max_session: 1, disbelieved: self.disbelieved.clone() }
    }

    fn try_walk<T>(&self, mode: RecoveryMode, look: impl FnOnce(&Walk<'_>) -> T) -> Result<T> {
        let scan = self.scan();
        let geo = Geometry::new(&superblock());
        walk(&self.disk, &geo, &scan, self.durable, mode).map(|walk| look(&walk))
    }

    fn walk(&self) -> Seen {
        self.try_walk(RecoveryMode::TolerateTornTail, Seen::of).expect("it is walked")
    }
}

/// What a walk came to.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    accepted: Vec<(u64, Before, bool)>,
    lost: u64,
    lost_at_end: bool,
    dropped: u64,
    end: u64,
    last_seq: Option<u64>,
}

impl Seen {
    fn of(walk: &Walk<'_>) -> Self {
        assert_eq!(walk.tail_seq, TAIL);
        Self {
            accepted: walk.accepted.iter().map(|a| (a.header.lsn, a.before, a.unsettled)).collect(),
            lost: walk.lost,
            lost_at_end: walk.lost_at_end,
            dropped: walk.dropped,
            end: walk.end,
            last_seq: walk.last_seq,
        }
    }

    /// All of them, the last one above the watermark.
    fn whole(frames: u64) -> Self {
        Self {
            accepted: (0..frames).map(|n| (lsn(n), Before::Whole, n + 1 == frames)).collect(),
            lost: 0,
            lost_at_end: false,
            dropped: 0,
            end: lsn(frames),
            last_seq: Some(TAIL + (frames - 1) * BLOCK / SEGMENT),
        }
    }
}

#[test]
fn what_is_whole_counts_to_its_last_frame() {
    for frames in [1, 2, 5, 16, 17, 20] {
        assert_eq!(Journal::of(frames).walk(), Seen::whole(frames));
    }
}

#[test]
fn a_frame_missing_below_the_watermark_is_a_loss_of_those_the_next_one_lists() {
    let mut one = Seen::whole(6);
    one.accepted.remove(2);
    one.accepted[2].1 = Before::LostOne;
    one.lost = 1;
    assert_eq!(Journal::of(6).without(2).walk(), one, "nothing of it is left");
    assert_eq!(Journal::of(6).unreadable(2).walk(), one, "its header is left");
    let mut two = one;
    two.accepted.remove(2);
    two.accepted[2].1 = Before::LostSome;
    assert_eq!(Journal::of(6).without(2).without(3).walk(), two);
    let mut apart = Seen::whole(7);
    apart.accepted.retain(|a| a.0 != lsn(1) && a.0 != lsn(4));
    (apart.accepted[1].1, apart.accepted[3].1, apart.lost) = (Before::LostOne, Before::LostOne, 2);
    assert_eq!(Journal::of(7).without(1).without(4).walk(), apart);
}

/// A frame that is not the last but one is not taken for it: an older one at its place, or one of another life.
#[test]
fn what_is_not_the_frame_before_the_missing_one_does_not_vouch_for_it() {
    let mut journal = Journal::of(4).without(2);
    let mut seen = Seen::whole(4);
    seen.accepted.remove(2);
    (seen.accepted[2].1, seen.lost) = (Before::LostOne, 1);
    assert_eq!(journal.walk(), seen);
    journal.get(3).header.prev_prev_hash ^= 1;
    seen.accepted[2].1 = Before::LostSome;
    assert_eq!(journal.walk(), seen);
}

#[test]
fn what_only_a_dropped_frame_says_is_durable_is_told() {
    let torn = || Journal::of(6).with(5, |f| f.header.payload_bytes = 1);
    let said = |journal: Journal| {
        let durable = journal.durable;
        journal.try_walk(RecoveryMode::TolerateTornTail, |walk| walk.said_by_dropped(durable)).expect("walked")
    };
    assert_eq!(said(torn()), Some(lsn(5)));
    assert_eq!(said(torn().in_flight_from(4)), None, "the one before it says as much");
    assert_eq!(said(Journal::of(6)), None);
    for (durable, told) in [(lsn(5) - 1, Some(lsn(5))), (lsn(5), None)] {
        let mut closed = torn();
        closed.durable = durable;
        assert_eq!(said(closed), told, "{durable}");
    }
}

#[test]
fn a_first_frame_that_is_missing_is_a_loss_too() {
    let mut seen = Seen::whole(4);
    seen.accepted.remove(0);
    (seen.accepted[0].1, seen.lost) = (Before::LostOne, 1);
    assert_eq!(Journal::of(4).without(0).walk(), seen);
    seen.accepted.remove(0);
    seen.accepted[0].1 = Before::LostSome;
    assert_eq!(Journal::of(4).without(0).without(1).walk(), seen);
}

#[test]
fn behind_something_unreadable_nothing_counts_as_following() {
    let mut journal = Journal::of(4).without(1);
    // The third follows the first, and yet something lies between them.
    let geo = Geometry::new(&superblock());
    let first = journal.get(0).header;
    let third = &mut journal.get(2).header;
    (third.prev_lsn, third.prev_hash) = (first.lsn, first.hash(geo.seed));
    let third = *third;
    journal.get(3).header.prev_hash = third.hash(geo.seed);
    let between = FrameHeader { lsn: lsn(1), ..first };
    let mut seen = Seen::whole(4);
    seen.accepted.remove(1);
    assert_eq!(journal.walk(), seen, "a place that was never written is no loss");
    journal.frames.insert(1, Found { header: between, offset: BLOCK, table: None });
    (seen.accepted[1].1, seen.lost) = (Before::LostSome, 1);
    assert_eq!(journal.walk(), seen);
}

#[test]
fn of_two_in_flight_the_second_does_not_stand_without_the_first() {
    let mut seen = Seen::whole(4);
    seen.dropped = 1;
    assert_eq!(Journal::of(6).in_flight_from(4).without(4).walk(), Seen { accepted: seen_before(4), ..seen });
    // It was sealed when the missing one was durable: then that is a loss, and this one stands.
    let mut seen = Seen::whole(6);
    seen.accepted.remove(4);
    (seen.accepted[4].1, seen.lost) = (Before::LostOne, 1);
    assert_eq!(Journal::of(6).without(4).walk(), seen);
}

#[test]
fn of_two_in_flight_both_stand_if_both_are_whole() {
    let mut seen = Seen::whole(6);
    seen.accepted[4].2 = true;
    assert_eq!(Journal::of(6).in_flight_from(4).walk(), seen);
}

#[test]
fn a_tail_that_begins_behind_its_front_lacks_nothing_if_what_came_before_is_past() {
    let mut seen = Seen::whole(4);
    seen.accepted.remove(0);
    let past = |f: &mut Found| f.header.prev_lsn = lsn(0) - BLOCK;
    assert_eq!(Journal::of(4).without(0).with(1, past).walk(), seen);
    // At its very front it does not matter what came before.
    let itself = |f: &mut Found| f.header.prev_lsn = lsn(0);
    assert_eq!(Journal::of(4).with(0, itself).walk(), Seen::whole(4));
}

/// No writer makes such a frame, and nothing that it lists is believed.
#[test]
fn a_frame_that_names_itself_as_its_predecessor_tells_of_no_single_loss() {
    let mut seen = Seen::whole(5);
    (seen.accepted[3].1, seen.lost) = (Before::LostSome, 1);
    assert_eq!(Journal::of(5).with(3, |f| f.header.prev_lsn = lsn(3)).walk(), seen);
}

/// All before the frame with this number, when the watermark reaches to it.
fn seen_before(n: u64) -> Vec<(u64, Before, bool)> {
    (0..n).map(|n| (lsn(n), Before::Whole, false)).collect()
}

#[test]
fn what_cannot_be_read_above_the_watermark_is_where_the_log_ends() {
    let ends = Seen { accepted: seen_before(4), dropped: 1, ..Seen::whole(4) };
    assert_eq!(Journal::of(5).in_flight_from(4).unreadable(4).walk(), ends);
    // And the one that was in flight beside it goes, too.
    assert_eq!(Journal::of(6).in_flight_from(4).unreadable(4).walk(), Seen { dropped: 2, ..ends });
}

#[test]
fn more_behind_it_than_may_be_in_flight_is_refused_and_a_salvage_ends_before_it() {
    for behind in 2..5 {
        let journal = Journal::of(5 + behind).in_flight_from(4).unreadable(4);
        let refused = journal.try_walk(RecoveryMode::TolerateTornTail, |_| ());
        assert!(matches!(refused, Err(crate::Error::Corrupt { offset, .. }) if offset == 4 * BLOCK), "{refused:?}");
        let seen = journal.try_walk(RecoveryMode::Salvage, Seen::of).expect("a salvage goes on");
        let ends = Seen { accepted: seen_before(4), dropped: 1 + behind, lost_at_end: true, ..Seen::whole(4) };
        assert_eq!(seen, ends);
    }
}

#[test]
fn an_end_below_what_was_durable_is_a_loss_that_nobody_lists() {
    let mut journal = Journal::of(4);
    journal.durable = lsn(4);
    let mut seen = Seen::whole(4);
    seen.accepted[3].2 = false;
    assert_eq!(journal.walk(), seen, "exactly to its end");
    journal.durable = lsn(4) + BLOCK;
    (seen.lost, seen.lost_at_end, seen.end) = (1, true, lsn(5));
    assert_eq!(journal.walk(), seen);
}

#[test]
fn a_disbelieved_segment_is_a_loss_where_nothing_behind_it_tells_of_it() {
    // The frames lie in the tail and the segment behind it.
    for (disbelieved, lost) in [(TAIL - 1, false), (TAIL, false), (TAIL + 1, false), (TAIL + 2, true)] {
        let journal = Journal { disbelieved: vec![disbelieved], ..Journal::of(18) };
        let seen = Seen { lost: lost.into(), lost_at_end: lost, ..Seen::whole(18) };
        assert_eq!(journal.walk(), seen, "{disbelieved}");
    }
    // One loss at the end is enough.
    let both = Journal { disbelieved: vec![TAIL + 2], durable: lsn(19), ..Journal::of(18) };
    assert_eq!(both.walk().lost, 1);
    // Nothing but its header is left of the only frame: whatever is not dead is lost.
    let alone = |disbelieved| {
        let journal = Journal { disbelieved: vec![disbelieved], ..Journal::of(1).unreadable(0) };
        journal.try_walk(RecoveryMode::Salvage, |walk| (walk.lost, walk.lost_at_end, walk.last_seq)).expect("walked")
    };
    assert_eq!(alone(0), (1, true, None));
}

#[test]
fn what_a_later_session_cut_off_does_not_exist() {
    let mut journal = Journal::of(6);
    // The log went on behind the third frame, and the fourth of it is from another life.
    for n in 3..6 {
        journal.get(n).header.session = 2;
        journal.get(n).header.cut = lsn(3);
    }
    let geo = Geometry::new(&superblock());
    for n in 4..6 {
        let prev = journal.get(n - 1).header;
        journal.get(n).header.prev_hash = prev.hash(geo.seed);
    }
    assert_eq!(journal.walk(), Seen::whole(6), "its own frames lie at the cut and behind it");
    journal.get(5).header.session = 1;
    let seen = Seen { accepted: (0..5).map(|n| (lsn(n), Before::Whole, n == 4)).collect(), ..Seen::whole(5) };
    // It names a higher watermark, and does not exist.
    assert_eq!(journal.walk(), seen);
}

/// A frame with three entries of two replicas, some of them carried.
const ENTRIES: [Entry<'_>; 4] = [(7, 5, 2, b"first"), (7, 6, 2, b""), (7, 7, 2, b"another one"), (8, 3, 1, b"carried")];

fn records_of_entries(table: &mut Vec<u8>) {
    record::encode_run(table, RunKind::Append, 7, 9, (5, 2), [5, 0, 11].into_iter());
    record::encode_put(table, 7, 10, b"vote", b"1");
    record::encode_run(table, RunKind::Carried, 8, 2, (3, 1), [7].into_iter());
}

/// Five frames, the last of them above the watermark and with entries.
fn with_entries() -> Journal {
    Journal::of(5).in_flight_from(4).filled(4, &ENTRIES, records_of_entries)
}

/// Of five frames the last does not count.
fn torn() -> Seen {
    Seen { accepted: seen_before(4), dropped: 1, ..Seen::whole(4) }
}

#[test]
fn every_byte_of_a_payload_above_the_watermark_is_looked_at_and_none_below_it() {
    let journal = with_entries();
    assert_eq!(journal.walk(), Seen::whole(5));
    let payload = u64::from(journal.frames[4].header.payload_bytes);
    assert_eq!(payload, 4 * 4 + 5 + 11 + 7);
    let at = 4 * BLOCK + FRAME_HEADER_BYTES as u64;
    for byte in 0..payload {
        journal.disk.flip_bit(at + byte, 3);
        assert_eq!(journal.walk(), torn(), "byte {byte}");
        journal.disk.flip_bit(at + byte, 3);
    }
    journal.disk.flip_bit(at + payload, 3);
    assert_eq!(journal.walk(), Seen::whole(5), "what lies behind it is not its own");
    let below = Journal::of(6).filled(4, &ENTRIES, records_of_entries);
    below.disk.flip_bit(at, 3);
    assert_eq!(below.walk(), Seen::whole(6), "that entry is damaged, which shows when it is read");
}

#[test]
fn a_payload_that_its_table_does_not_describe_is_bad() {
    type Change = fn(&mut Found);
    let changes: [(&str, Change); 6] = [
        ("a byte more than its entries", |f| f.header.payload_bytes += 1),
        ("a byte less", |f| f.header.payload_bytes -= 1),
        ("no checksum of the last", |f| f.header.payload_bytes -= 8),
        ("the body of another frame", |f| f.header.payload_digest ^= 1),
        ("no list of participants", |f| f.table = Some(Box::default())),
        ("half a record", |f| f.table = f.table.take().map(|t| t[..t.len() - 1].into())),
    ];
    for (what, change) in changes {
        assert_eq!(with_entries().with(4, change).walk(), torn(), "{what}");
    }
    // The same bytes at another place, of another replica, with another index or term: old ones.
    for entries in [
        [(6, 5, 2, &b"first"[..]), ENTRIES[1], ENTRIES[2], ENTRIES[3]],
        [ENTRIES[0], (7, 7, 2, b""), ENTRIES[2], ENTRIES[3]],
        [ENTRIES[0], ENTRIES[1], (7, 7, 3, b"another one"), ENTRIES[3]],
        [ENTRIES[0], ENTRIES[1], ENTRIES[2], (8, 4, 1, b"carried")],
    ] {
        let journal = Journal::of(5).in_flight_from(4).filled(4, &entries, records_of_entries);
        assert_eq!(journal.walk(), torn(), "{entries:?}");
    }
}

#[test]
fn a_payload_that_is_bad_ends_the_log_unless_more_follow_than_may_be_in_flight() {
    let bad = |frames| {
        let journal = Journal::of(frames).in_flight_from(4).filled(4, &ENTRIES, records_of_entries);
        journal.disk.flip_bit(4 * BLOCK + FRAME_HEADER_BYTES as u64, 0);
        journal
    };
    assert_eq!(bad(6).walk(), Seen { dropped: 2, ..torn() }, "one behind it");
    let refused = bad(7).try_walk(RecoveryMode::TolerateTornTail, |_| ());
    assert!(matches!(refused, Err(crate::Error::Corrupt { offset, .. }) if offset == 4 * BLOCK), "{refused:?}");
}

#[test]
fn a_payload_that_cannot_be_read_is_an_error_and_no_end() {
    let journal = with_entries();
    let at = 4 * BLOCK + FRAME_HEADER_BYTES as u64;
    journal.disk.fail_reads(at..at + 1, EIO);
    let error = journal.try_walk(RecoveryMode::TolerateTornTail, |_| ()).expect_err("it may be there");
    assert!(error.to_string().contains(&format!("reading frame {}", lsn(4))), "{error}");
    let below = Journal::of(6).filled(4, &ENTRIES, records_of_entries);
    below.disk.fail_reads(at..at + 1, EIO);
    assert_eq!(below.walk(), Seen::whole(6), "below the watermark it is not read");
    let salvaged = journal.try_walk(RecoveryMode::Salvage, Seen::of).expect("salvaged");
    assert_eq!(salvaged, Seen::whole(5), "no power cut left it: a salvage takes what its table says");
}

fn piece(owner: u64) -> Packed {
    let payload = [owner as u8; 3000];
    let entry = PackEntry { term: 1, payload: &payload, payload_crc: crc32c::crc32c(&payload), bulk: None };
    pack(superblock().seed(), owner, 1, &[entry], 16 << 10, || 1000).pop().expect("one piece")
}

#[test]
fn what_was_placed_beside_a_frame_must_hold_and_what_was_settled_does() {
    let packed = piece(7);
    let extent = Extent { block: 200, blocks: packed.blocks() };
    let desc = || packed.at([extent].into());
    type Records<'a> = &'a dyn Fn(&mut Vec<u8>);
    let placed: Records<'_> = &|t| record::encode_pieces(t, RunKind::Append, 7, 1, &[desc()]);
    let value: Records<'_> = &|t| record::encode_put_out(t, 7, 1, b"large", &desc());
    let settled: Records<'_> = &|t| record::encode_pieces(t, RunKind::Carried, 7, 1, &[desc()]);
    let kept: Records<'_> = &|t| record::encode_kept_out(t, 7, 1, b"large", &desc());
    for (records, looked_at) in [(placed, true), (value, true), (settled, false), (kept, false)] {
        let journal = Journal::of(5).in_flight_from(4).filled(4, &[], records);
        assert_eq!(journal.walk(), if looked_at { torn() } else { Seen::whole(5) }, "nothing lies there");
        journal.disk.write_at(extent.offset(), packed.buf.as_slice()).expect("written");
        assert_eq!(journal.walk(), Seen::whole(5));
        journal.disk.flip_bit(extent.offset() + 3000, 1);
        assert_eq!(journal.walk(), if looked_at { torn() } else { Seen::whole(5) }, "a bit of it");
        journal.disk.fail_reads(extent.offset()..extent.offset() + 1, EIO);
        let read = journal.try_walk(RecoveryMode::TolerateTornTail, Seen::of);
        assert_eq!(read.is_err(), looked_at, "{read:?}");
    }
}

/// Nobody writes a log that does so: a descriptor is short, and what it names may be long.
#[test]
fn however_often_frames_name_the_same_blocks_no_more_is_read_than_there_is() {
    let payload = vec![7; 1 << 20];
    let entry = PackEntry { term: 1, payload: &payload, payload_crc: crc32c::crc32c(&payload), bulk: None };
    let packed = pack(superblock().seed(), 7, 1, &[entry], 16 << 10, || 1000).pop().expect("one piece");
    let desc = packed.at([Extent { block: 200, blocks: packed.blocks() }].into());
    let written = |journal: Journal| {
        journal.disk.write_at(desc.extents[0].offset(), packed.buf.as_slice()).expect("written");
        journal
    };
    let placed = |t: &mut Vec<u8>, n| record::encode_pieces(t, RunKind::Append, 7, 1, &vec![desc.clone(); n]);
    let values = |t: &mut Vec<u8>, n| (0..n).for_each(|_| record::encode_put_out(t, 7, 1, b"large", &desc));
    let once = written(Journal::of(5).in_flight_from(4).filled(4, &[], |t| placed(t, 1)));
    assert_eq!(once.walk(), Seen::whole(5));
    type Records<'a> = &'a dyn Fn(&mut Vec<u8>);
    let many: [Records<'_>; 2] = [&|t| placed(t, 2000), &|t| values(t, 2000)];
    for records in many {
        let journal = written(Journal::of(5).in_flight_from(4).filled(4, &[], records));
        assert_eq!(journal.walk(), torn());
        assert!(journal.disk.bytes_read() < 3 * CAPACITY, "{} bytes were read", journal.disk.bytes_read());
    }
    // Nor by many frames.
    let mut journal = Journal::of(40).in_flight_from(4);
    for n in 4..40 {
        journal = journal.filled(n, &[], |t| placed(t, 2));
    }
    let journal = written(journal);
    let refused = journal.try_walk(RecoveryMode::TolerateTornTail, |_| ());
    assert!(matches!(refused, Err(crate::Error::Corrupt { .. })), "{refused:?}");
    assert!(journal.disk.bytes_read() < 3 * CAPACITY, "{} bytes were read", journal.disk.bytes_read());
}

#[test]
fn where_the_log_ends_in_the_file() {
    let end = |journal: &Journal| {
        let scan = journal.scan();
        journal.try_walk(RecoveryMode::TolerateTornTail, |walk| walk.end_offset(&scan)).expect("it is walked")
    };
    assert_eq!(end(&Journal::of(3)), 3 * BLOCK);
    assert_eq!(end(&Journal::of(5).in_flight_from(4).unreadable(4)), 4 * BLOCK, "what is cut off does not count");
    let nothing = Journal::of(0);
    let walked = nothing.try_walk(RecoveryMode::Salvage, |walk| (walk.end_offset(&nothing.scan()), walk.end));
    assert_eq!(walked.expect("it is walked"), (0, 0));
}

/// Whatever an image says, no frame is compared with every session, nor with every frame behind it.
#[test]
fn neither_sessions_nor_unreadable_frames_are_compared_with_all_others() {
    // So many that it would not end.
    const MANY: u64 = 800_000;
    let frame = |n: u64| {
        let header =
            FrameHeader { lsn: lsn(n), session: n, cut: u64::MAX, watermark: lsn(MANY), ..FrameHeader::default() };
        Found { header, offset: 0, table: None }
    };
    let scan = Scan {
        slabs: vec![SlabScan { slab: 0, seq: TAIL, frames: (0..MANY).map(frame).collect() }],
        max_seq: TAIL,
        max_session: MANY,
        disbelieved: Vec::new(),
    };
    assert_eq!(existing(&scan).len() as u64, MANY);
    let walk = walk(&SimDisk::new(CAPACITY), &Geometry::new(&superblock()), &scan, 0, RecoveryMode::Salvage);
    assert_eq!(walk.expect("walked").accepted.len(), 0);
}

#[test]
fn a_frame_is_void_where_any_later_session_cut_at_it_or_before() {
    let frame = |n: u64, session: u64, cut: u64| {
        let header = FrameHeader { lsn: lsn(n), session, cut, ..FrameHeader::default() };
        Found { header, offset: n, table: None }
    };
    let frames = vec![frame(0, 1, 0), frame(1, 1, 0), frame(2, 2, lsn(2)), frame(3, 3, lsn(1)), frame(4, 4, lsn(4))];
    let slabs = vec![SlabScan { slab: 0, seq: TAIL, frames }];
    let scan = Scan { slabs, max_seq: TAIL, max_session: 4, disbelieved: Vec::new() };
    let left: Vec<u64> = existing(&scan).iter().map(|f| f.offset).collect();
    assert_eq!(left, [0, 3, 4], "the third session cut two sessions off, and the last cut nothing more");
}
