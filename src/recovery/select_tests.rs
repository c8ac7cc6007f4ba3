//! What an opening leaves unread would not have changed what it finds: compared with an opening that reads every slab.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustc_hash::FxHashMap;

use super::scan::{Found as Frame, Scan, SlabScan, scan};
use super::select::more;
use super::walk::walk;
use super::{Found, read_superblock};
use crate::disk::BLOCK;
use crate::disk::sim::{Fault, SimDisk};
use crate::engine::Geometry;
use crate::format::frame::FrameHeader;
use crate::format::superblock::Superblock;
use crate::options::RecoveryMode;
use crate::sync::{Arc, Mutex};
use crate::{Batch, Options, Placement, Wal};

const SEGMENT: u64 = 64 << 10;

fn options() -> Options {
    let options = Wal::options().segment_size(SEGMENT as u32).chunk_size(4096).journal_cap(24 * SEGMENT);
    options.placement(Placement::Journal).background(false)
}

fn superblock(disk: &SimDisk) -> Superblock {
    match read_superblock(disk, true) {
        Ok(Found::Log(superblock)) => *superblock,
        other => panic!("no log: {:?}", other.err()),
    }
}

/// What counts, as an opening of this kind finds it.
fn found(disk: &SimDisk, sb: &Superblock, scanned: RecoveryMode) -> String {
    let walked = scan(disk, sb, scanned, &mut |_| ()).and_then(|scan| {
        let walk = walk(disk, &Geometry::new(sb), &scan, sb.durable, RecoveryMode::TolerateTornTail)?;
        let frames: Vec<_> = walk.accepted.iter().map(|f| (f.header.lsn, f.before, f.unsettled)).collect();
        let ends = (walk.end, walk.tail_seq, walk.last_seq, walk.lost, walk.lost_at_end, walk.dropped);
        Ok(format!("{ends:?} {frames:?} {} {}", scan.max_seq.max(walk.tail_seq), scan.max_session))
    });
    walked.unwrap_or_else(|error| error.to_string())
}

/// The same, whether all of the journal is read or what may live. A salvage reads all of it.
fn assert_same(disk: &SimDisk, sb: &Superblock, what: &str) {
    let (some, all) = (found(disk, sb, RecoveryMode::TolerateTornTail), found(disk, sb, RecoveryMode::Salvage));
    assert_eq!(some, all, "{what}");
}

/// A session: it writes a little or much, and is cut off.
fn session(disk: &Arc<SimDisk>, rng: &mut StdRng) {
    if rng.random_bool(0.5) {
        disk.fail_at(disk.events() + rng.random_range(1..80), Fault::Cut);
    }
    let Ok(wal) = options().open_disk(disk.clone()) else { return };
    for _ in 0..rng.random_range(0..60) {
        let id = rng.random_range(1..5);
        let next = wal.replica(id).last_index() + 1;
        let bytes = vec![7; rng.random_range(0..9000)];
        let mut batch = Batch::new();
        batch.append(id, &[(next, 1, &bytes)]);
        if rng.random_ratio(1, 4) {
            // A frame that fills most of a segment.
            for id in 10..rng.random_range(11..16) {
                let next = wal.replica(id).last_index() + 1;
                batch.append(id, &[(next, 1, [7; 8000])]).truncate_prefix(id, next);
            }
        }
        if rng.random_bool(0.8) {
            batch.truncate_prefix(id, next.saturating_sub(rng.random_range(0..8)).max(1));
        }
        if wal.commit(&mut batch).is_err() || rng.random_ratio(1, 30) && wal.checkpoint().is_err() {
            return;
        }
    }
}

#[test]
fn what_is_left_unread_would_change_nothing_whatever_is_cut_lost_or_rotten() {
    for seed in 0..seeds() {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disk = Arc::new(SimDisk::new(6 << 20));
        let mut older = disk.kept_image();
        for turn in 0..12 {
            session(&disk, &mut rng);
            disk = Arc::new(disk.crash_seeded(rng.random()));
            let what = format!("seed {seed}, turn {turn}");
            let sb = superblock(&disk);
            assert_same(&disk, &sb, &what);
            let image = disk.kept_image();
            // Where slabs begin, and anywhere.
            for n in 0..30 {
                let slab = sb.journal_slabs[rng.random_range(0..sb.journal_slabs.len())];
                let block = if n % 2 == 0 { 0 } else { rng.random_range(0..SEGMENT / BLOCK as u64) };
                let at = (sb.slab_offset(slab) + block * BLOCK as u64) as usize;
                let mut hurt = image.clone();
                let wound = match n % 3 {
                    0 => &[0; BLOCK][..],
                    1 => &[0xA5; BLOCK][..],
                    // A write that was lost.
                    _ => &older[at..][..BLOCK],
                };
                hurt[at..][..BLOCK].copy_from_slice(wound);
                assert_same(
                    &SimDisk::from_image(hurt),
                    &sb,
                    &format!("{what}, wound {n} in slab {slab}, block {block}"),
                );
            }
            // Where two segments in a row begin.
            let all = scan(&*disk, &sb, RecoveryMode::Salvage, &mut |_| ()).expect("scanned");
            for pair in all.slabs.windows(2).rev().take(4) {
                let mut hurt = image.clone();
                pair.iter().for_each(|slab| hurt[sb.slab_offset(slab.slab) as usize..][..BLOCK].fill(0xA5));
                let what = format!("{what}, segments {} and {}", pair[0].seq, pair[1].seq);
                assert_same(&SimDisk::from_image(hurt), &sb, &what);
            }
            older = image;
        }
    }
}

/// A segment's only frame and the next one's first are lost: what lies behind them must be found all the same, or a log that was not closed
/// would end before them without a word.
#[test]
fn a_segment_lost_whole_and_the_beginning_of_the_next_do_not_end_the_log() {
    for crashes in [false, true] {
        let mut disk = Arc::new(SimDisk::new(20 << 20));
        let mut wal = options().open_disk(disk.clone()).expect("formatted");
        let append = |wal: &Wal, replicas: u64| {
            let mut batch = Batch::new();
            for id in 1..=replicas {
                batch.append(id, &[(wal.replica(id).last_index() + 1, 1, [7; 8300])]);
            }
            wal.commit(&mut batch).expect("committed");
        };
        for segment in 1..=8 {
            // A segment's only frame: another does not fit behind it.
            append(&wal, 6);
            if crashes && segment % 2 == 0 {
                // Each opening goes on where the frames before it say.
                drop(wal);
                disk = Arc::new(disk.crash_lost_all());
                wal = options().open_disk(disk.clone()).expect("opened");
            }
        }
        append(&wal, 2);
        append(&wal, 2);
        drop(wal);
        let disk = disk.crash_lost_all();
        let sb = superblock(&disk);
        let all = scan(&disk, &sb, RecoveryMode::Salvage, &mut |_| ()).expect("scanned");
        let [.., only, last] = &all.slabs[..] else { panic!("{all:?}") };
        assert_eq!((only.frames.len(), last.frames.len()), (1, 2), "crashes: {crashes}");
        for lost in [only, last] {
            disk.poke(sb.slab_offset(lost.slab), &[0; BLOCK]);
        }
        assert_same(&disk, &sb, "two are lost");
        let refused = options().open_disk(Arc::new(disk)).expect_err("nobody can say who was in them").to_string();
        assert!(refused.contains("neighbouring frames"), "{refused}");
    }
}

/// The log goes on in the named slabs, also after a crash, in whatever order the free ones are: so these are worth reading.
#[test]
fn the_next_two_segments_lie_where_the_last_frame_says() {
    let mut disk = Arc::new(SimDisk::new(20 << 20));
    let mut before: Option<(u64, [u32; 2])> = None;
    for turn in 0..20 {
        let wal = options().open_disk(disk.clone()).expect("opened");
        // Three segments or a little more; the journal is gone through twice.
        for _ in 0..20 {
            let next = wal.replica(1).last_index() + 1;
            wal.commit(Batch::new().append(1, &[(next, 1, [7; 9000])]).truncate_prefix(1, next)).expect("committed");
        }
        drop(wal);
        disk = Arc::new(disk.crash_lost_all());
        let all = scan(&*disk, &superblock(&disk), RecoveryMode::Salvage, &mut |_| ()).expect("scanned");
        if let Some((seq, named)) = before {
            let slabs: Vec<u32> = all.slabs.iter().filter(|s| s.seq > seq).map(|s| s.slab).take(2).collect();
            assert_eq!(slabs, named, "turn {turn}, behind segment {seq}");
        }
        let newest = all.slabs.last().expect("something was written");
        let header = newest.frames.last().expect("a slab with frames").header;
        before = Some((newest.seq, [header.next, header.after].map(|slab| slab - 1)));
    }
}

fn frame(seq: u64, tail_seq: u64, following: [u32; 2]) -> Frame {
    let [next, after] = following;
    let header = FrameHeader { lsn: seq * SEGMENT, session: 1, tail_seq, next, after, ..FrameHeader::default() };
    Frame { header, offset: 0, table: Some(Box::default()) }
}

/// What else is read of a journal of ten slabs, where those with frames in `read` were read, and `firsts` has the first frames of others.
fn wanted(read: &[(u32, Frame)], firsts: &[(u32, Frame)]) -> Vec<u32> {
    let sb = options().geometry([1; 16], 20 << 20).expect("sound");
    let sb = Superblock { journal_slabs: (0..10).collect(), ..sb };
    let slab = |(slab, frame): &(u32, Frame)| SlabScan {
        slab: *slab,
        seq: frame.header.lsn / SEGMENT,
        frames: vec![frame.clone()],
    };
    let scan = Scan { slabs: read.iter().map(slab).collect(), max_seq: 9, max_session: 1, disbelieved: Vec::new() };
    more(&sb, &scan, &read.iter().map(|r| r.0).collect(), &firsts.iter().cloned().collect::<FxHashMap<_, _>>())
}

#[test]
fn what_is_read_next_is_what_frames_name_and_what_is_not_past_or_all_where_that_is_in_doubt() {
    let all_but = |read: &[u32]| (0..10).filter(|slab| !read.contains(slab)).collect::<Vec<u32>>();
    // Counted from one.
    assert_eq!(wanted(&[(3, frame(5, 5, [8, 5]))], &[]), [4, 7]);
    for unknown in [[0, 5], [8, 0], [0, 0], [11, 5], [8, 11]] {
        assert_eq!(wanted(&[(3, frame(5, 5, unknown))], &[]), all_but(&[3]), "{unknown:?}");
    }
    // The tail, and what is newer; not what is past.
    let firsts = [(0, frame(4, 1, [0; 2])), (1, frame(5, 1, [0; 2])), (2, frame(7, 1, [0; 2]))];
    assert_eq!(wanted(&[(3, frame(6, 5, [8, 5]))], &firsts), [1, 2, 4, 7]);
    assert_eq!(wanted(&[], &firsts), [2], "the newest names the rest");
    assert_eq!(wanted(&[], &[]), all_but(&[]), "no slab begins with a frame");
    // When those were read: nothing more, unless a number is missing.
    let read = |seqs: [u64; 3]| {
        let newest = seqs.into_iter().max().expect("three");
        let frames = [3, 4, 7]
            .into_iter()
            .zip(seqs)
            .map(|(slab, seq)| (slab, frame(seq, 5, if seq == newest { [5, 8] } else { [0; 2] })));
        wanted(&frames.collect::<Vec<_>>(), &[])
    };
    assert_eq!(read([5, 7, 6]), []);
    for missing in [[5, 8, 6], [6, 8, 7], [7, 8, 4]] {
        assert_eq!(read(missing), all_but(&[3, 4, 7]), "{missing:?}");
    }
}

fn seeds() -> u64 {
    std::env::var("STRANDLOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// Most of a large journal is empty, and of most of the rest nothing lives.
#[test]
fn a_large_journal_that_holds_little_is_hardly_read() {
    let disk = Arc::new(SimDisk::new(20 << 20));
    let wal = options().open_disk(disk.clone()).expect("formatted");
    for i in 1..=40 {
        wal.commit(Batch::new().append(1, &[(i, 1, [7; 9000])]).truncate_prefix(1, i)).expect("committed");
    }
    wal.checkpoint().expect("cleaned");
    wal.commit(Batch::new().append(1, &[(41, 1, [7; 9000])])).expect("committed");
    drop(wal);
    let disk = disk.crash_lost_all();
    let sb = superblock(&disk);
    assert!(sb.journal_slabs.len() >= 16, "{}", sb.journal_slabs.len());
    let whole: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let told = Arc::clone(&whole);
    disk.on_read(move |offset, _| {
        let at = offset - crate::format::POOL_OFFSET;
        if at % SEGMENT >= SEGMENT / 2 {
            told.lock().insert(at / SEGMENT);
        }
        Ok(())
    });
    scan(&disk, &sb, RecoveryMode::TolerateTornTail, &mut |_| ()).expect("scanned");
    let read = whole.lock().len();
    assert!((1..=4).contains(&read), "{read} slabs of {} were read to their end", sb.journal_slabs.len());
}

/// All that was read so far is looked through after each reading: slab by slab, that would be quadratic.
#[test]
fn where_nothing_counts_twice_as_many_slabs_are_read_each_time() {
    const SLABS: u32 = 2000;
    let sb = options().geometry([1; 16], 1 << 30).expect("sound");
    let sb = Superblock { journal_slabs: (0..SLABS).collect(), ..sb };
    // A table that is bad: no such frame counts. The newest lie in front.
    let frame = |slab: u32| {
        let lsn = u64::from(2 * SLABS - slab) * SEGMENT;
        Frame { header: FrameHeader { lsn, session: 1, ..FrameHeader::default() }, offset: 0, table: None }
    };
    let firsts: FxHashMap<u32, Frame> = (0..SLABS).map(|slab| (slab, frame(slab))).collect();
    let mut scan = Scan { slabs: Vec::new(), max_seq: 0, max_session: 0, disbelieved: Vec::new() };
    let (mut read, mut asked) = (HashSet::new(), Vec::new());
    loop {
        let wanted = more(&sb, &scan, &read, &firsts);
        if wanted.is_empty() {
            break;
        }
        let newest: Vec<u32> = (read.len() as u32..).take(wanted.len()).collect();
        assert_eq!(wanted, newest, "the newest first, and none again");
        asked.push(wanted.len());
        for slab in wanted {
            assert!(read.insert(slab));
            let frame = frame(slab);
            scan.slabs.push(SlabScan { slab, seq: frame.header.lsn / SEGMENT, frames: vec![frame] });
        }
    }
    assert_eq!(asked[..5], [1, 1, 2, 4, 8]);
    assert_eq!((read.len(), asked.len()), (SLABS as usize, 12));
}
