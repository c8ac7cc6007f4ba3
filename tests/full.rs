//! A full log: what frees space gets through, and so does the state that raft needs to free more, in every order and with crashes in
//! between.

mod support;

use std::sync::Arc;

use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{Batch, Error, Options, Placement, Wal};

use support::model::{Model, Op, batch};
use support::{PLACEMENTS, assert_sound, assert_space, for_each, open, payload, small};

const REPLICAS: u64 = 6;
/// Keyed values keep their length: hard state does not grow.
const STATE: usize = 40;

fn options(placement: Placement) -> Options {
    small(placement).journal_cap(6 * (64 << 10))
}

fn put(replica: u64, salt: u64) -> Op {
    Op::Put { replica, key: b"hard_state".to_vec(), value: payload(replica, salt, 7, STATE) }
}

/// A value in a piece of its own, of two chunks.
fn large(salt: u64) -> Op {
    Op::Put { replica: 1, key: b"large".to_vec(), value: payload(1, salt, 9, 8000) }
}

/// The image of a log that takes no more appends, and what it holds.
fn full(placement: Placement) -> (Vec<u8>, Model) {
    let disk = Arc::new(SimDisk::new(12 * (64 << 10) + (64 << 10)));
    let wal = open(options(placement), &disk);
    let mut model = Model::default();
    for replica in 1..=REPLICAS {
        let mut first = vec![put(replica, 0)];
        if replica == 1 {
            first.push(large(0));
        }
        wal.commit(batch(&first)).expect("empty as it is");
        model.apply(&first);
    }
    // Append entries large and small, until not even the smallest gets in.
    for len in [3000, 300, 1] {
        let mut replica = 0;
        let mut refused = 0;
        while refused < REPLICAS {
            replica = replica % REPLICAS + 1;
            let index = model.reps[&replica].last() + 1;
            let op = vec![Op::Append { replica, entries: vec![(index, 1, payload(replica, index, 1, len))] }];
            match wal.commit(batch(&op)) {
                Ok(_) => {
                    model.apply(&op);
                    refused = 0;
                }
                Err(Error::Full(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            assert!(index < 100_000, "it is never full");
        }
    }
    drop(wal);
    (disk.crash_lost_all().kept_image(), model)
}

/// Operations that must get through, one for each of five replicas; the sixth is left alone.
fn relief(model: &Model) -> Vec<Op> {
    let half = |id: u64| (model.reps[&id].first + model.reps[&id].last()) / 2 + 1;
    vec![
        Op::Truncate { replica: 1, first: half(1) },
        Op::Truncate { replica: 2, first: model.reps[&2].last() + 1 },
        Op::Remove { replica: 3 },
        put(4, 1),
        Op::Reset { replica: 5, index: model.reps[&5].last() + 10, term: 9 },
    ]
}

/// The `n`th permutation of `count` things.
fn permutation(mut n: usize, count: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..count).collect();
    let mut order = Vec::new();
    for size in (1..=count).rev() {
        order.push(left.remove(n % size));
        n /= size;
    }
    order
}

#[test]
fn whatever_frees_space_gets_through_a_full_log_in_every_order() {
    const ORDERS: usize = 120;
    for placement in PLACEMENTS {
        let (image, model) = full(placement);
        let ops = relief(&model);
        // Each bit says whether the power fails before that operation.
        let jobs: Vec<(usize, u32)> = (0..ORDERS).flat_map(|n| [0, 0b11111, 0b01010].map(|cuts| (n, cuts))).collect();
        for_each(&jobs, |(n, cuts)| {
            let mut model = model.clone();
            let mut disk = Arc::new(SimDisk::from_image(image.clone()));
            let mut wal = open(options(placement), &disk);
            for (turn, at) in permutation(n, ops.len()).into_iter().enumerate() {
                if cuts >> turn & 1 == 1 {
                    drop(wal);
                    disk = Arc::new(disk.crash_lost_all());
                    wal = open(options(placement), &disk);
                }
                let op = vec![ops[at].clone()];
                wal.commit(batch(&op)).unwrap_or_else(|e| panic!("{placement:?}, order {n}, turn {turn}, {op:?}: {e}"));
                model.apply(&op);
            }
            // There is room again.
            assert_takes_more(&wal, &mut model);
            let found = Model::read(&wal).expect("readable");
            assert!(found == model, "{}", model.difference(&found));
            assert_sound(&wal, "relieved");
        });
    }
}

/// A cut needs nothing but its record: neither room for an entry nor one that can be read.
#[test]
fn a_full_log_takes_cuts_of_one_entry_of_half_and_of_all() {
    for placement in PLACEMENTS {
        let (image, mut model) = full(placement);
        let disk = Arc::new(SimDisk::from_image(image));
        let wal = open(options(placement), &disk);
        for replica in 1..=REPLICAS {
            let (first, last) = (model.reps[&replica].first, model.reps[&replica].last());
            let from = [last, first + (last - first) / 2, first][replica as usize % 3];
            let op = vec![Op::Cut { replica, from }];
            wal.commit(batch(&op)).unwrap_or_else(|e| panic!("{placement:?}, {op:?}: {e}"));
            model.apply(&op);
        }
        assert_takes_more(&wal, &mut model);
        assert_sound(&wal, "cut");
        drop(wal);
        let wal = open(options(placement), &Arc::new(disk.crash_lost_all()));
        let found = Model::read(&wal).expect("readable");
        assert!(found == model, "{placement:?}: {}", model.difference(&found));
        assert_takes_more(&wal, &mut model);
        assert_sound(&wal, "cut, and opened again");
    }
}

fn assert_takes_more(wal: &Wal, model: &mut Model) {
    for replica in [2, 6] {
        let index = model.reps[&replica].last() + 1;
        let op = vec![Op::Append { replica, entries: vec![(index, 2, payload(replica, index, 2, 3000))] }];
        wal.commit(batch(&op)).unwrap_or_else(|e| panic!("replica {replica}: {e}"));
        model.apply(&op);
    }
}

/// State that does not grow can be written any number of times, and a full log opened any number of times.
#[test]
fn a_full_log_takes_hard_states_for_ever_and_opens_for_ever() {
    for placement in PLACEMENTS {
        let (image, mut model) = full(placement);
        let mut disk = Arc::new(SimDisk::from_image(image));
        for round in 1..=60 {
            let wal = open(options(placement), &disk);
            for salt in 0..40 {
                let op = vec![put(1 + salt % REPLICAS, round << 8 | salt)];
                wal.commit(batch(&op)).unwrap_or_else(|e| panic!("{placement:?}, round {round}: {e}"));
                model.apply(&op);
            }
            let refused = wal.commit(Batch::new().append(6, &[(model.reps[&6].last() + 1, 1, vec![0; 3000])]));
            assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
            drop(wal);
            disk = Arc::new(disk.crash_lost_all());
        }
        let found = Model::read(&open(options(placement), &disk)).expect("readable");
        assert!(found == model, "{}", model.difference(&found));
    }
}

/// The new value is written beside the old one: chunks for it are kept from appends of every placement.
#[test]
fn a_full_log_takes_a_large_value_again_and_again() {
    for placement in PLACEMENTS {
        let (image, mut model) = full(placement);
        let disk = Arc::new(SimDisk::from_image(image));
        let wal = open(options(placement), &disk);
        for salt in 1..50 {
            let ops = vec![large(salt)];
            wal.commit(batch(&ops)).unwrap_or_else(|e| panic!("{placement:?} {salt}: {e}"));
            model.apply(&ops);
        }
        assert_sound(&wal, "large values on a full log");
        drop(wal);
        let wal = open(options(placement), &Arc::new(disk.crash_lost_all()));
        assert!(Model::read(&wal).expect("readable") == model, "{placement:?}");
    }
}

/// Every replica has a little in every segment. Settled segment by segment, each part would take a chunk, of which only one was reserved
/// for the whole.
#[test]
fn a_full_log_of_scattered_replicas_is_cleaned_within_what_was_reserved() {
    const SCATTERED: u64 = 15;
    const JOURNAL: u64 = 16 * (64 << 10);
    let disk = Arc::new(SimDisk::new(40 * (64 << 10) + (64 << 10)));
    let wal = open(small(Placement::Journal).journal_cap(JOURNAL), &disk);
    let mut refused = 0;
    let mut batch = Batch::new();
    for turn in 0_u64.. {
        let replica = turn % SCATTERED;
        let next = wal.replica(replica).last_index() + 1;
        for index in next..next + 5 {
            batch.append(replica, &[(index, 1, payload(replica, index, 1, 210))]);
        }
        match wal.commit(&mut batch) {
            Ok(_) => refused = 0,
            Err(Error::Full(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        batch.clear();
        if turn % 40 == 0 {
            assert_space(&wal, "on the way");
        }
        if refused == SCATTERED {
            break;
        }
    }
    wal.checkpoint().unwrap_or_else(|e| panic!("{e}: {:#?}", wal.stats()));
    let stats = wal.stats();
    assert!(stats.free_segments + 1 >= stats.journal_segments, "all but the newest are clean: {stats:#?}");
    assert_sound(&wal, "cleaned");
    let model = Model::read(&wal).expect("readable");
    drop(wal);
    let wal = open(small(Placement::Journal), &Arc::new(disk.crash_lost_all()));
    assert!(Model::read(&wal).expect("readable") == model);
}

/// So many keys or small replicas are written in one batch.
const AT_ONCE: u64 = 10;

fn narrow() -> Options {
    let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10);
    options.journal_cap(16 * (64 << 10)).background(false)
}

/// Asserts that a log goes on being cleaned whose chunks are all taken or reserved, in whose budget small replicas have so many `quarters`
/// and keys most of another one; if `again` is given, after it was opened again with these options.
fn is_cleaned_when_full(again: Option<Options>, quarters: u64) {
    let disk = Arc::new(SimDisk::new(256 * (64 << 10) + (64 << 10)));
    let mut wal = narrow().open_disk(disk.clone()).expect("formatted");
    let spare = |wal: &Wal| wal.stats().free_chunks.saturating_sub(wal.stats().reserved_chunks);
    let mut last = 0;
    while spare(&wal) > 100 {
        last += 1;
        let len = (spare(&wal) - 90).min(32) as usize * 4096;
        wal.commit(Batch::new().append(1, &[(last, 1, vec![1; len])])).expect("room");
    }
    let left = |wal: &Wal, quarters: u64| {
        let s = wal.stats();
        (s.carried_class_limit / 4 * quarters).saturating_sub(s.carried_class_bytes)
    };
    let mut idle = 0;
    while left(&wal, quarters) >= 2000 {
        let mut batch = Batch::new();
        for _ in 0..AT_ONCE {
            idle += 1;
            batch.append(1000 + idle, &[(1, 1, vec![2; 60 + idle as usize / 100])]);
        }
        wal.commit(&mut batch).expect("room");
    }
    let keys_from = |first: u64, byte: u8| {
        let mut batch = Batch::new();
        (first..first + AT_ONCE).for_each(|key| _ = batch.put(1_000_000, &key.to_le_bytes(), &[byte; 100]));
        batch
    };
    let mut keys = 0;
    while left(&wal, quarters + 1) >= 11_000 {
        wal.commit(keys_from(keys, 3)).expect("room");
        keys += AT_ONCE;
    }
    // Reserve the chunks that are left.
    let mut large = 0;
    while spare(&wal) >= 3 {
        wal.commit(Batch::new().append(900_001 + large % 3, &[(large / 3 + 1, 1, vec![4; 3000])])).expect("room");
        large += 1;
    }
    wal.sync().expect("durable");
    if let Some(options) = again {
        drop(wal);
        wal = options.open_disk(Arc::new(disk.crash_lost_all())).expect("opened");
        let stats = wal.stats();
        assert!(stats.reserved_chunks <= stats.free_chunks, "chunks are reserved that are not there: {stats:#?}");
    }
    // Keys written anew at the same length are never refused.
    for round in 0..60 {
        for first in (0..keys).step_by(AT_ONCE as usize) {
            wal.commit(keys_from(first, round)).unwrap_or_else(|e| panic!("{e}, in round {round}: {:#?}", wal.stats()));
        }
    }
    wal.checkpoint().expect("no error");
    for id in [1, 900_001, 1001] {
        wal.commit(Batch::new().remove(id)).unwrap_or_else(|e| panic!("{id}: {e}: {:#?}", wal.stats()));
    }
}

#[test]
fn a_full_log_goes_on_being_cleaned() {
    is_cleaned_when_full(None, 3);
}

/// An opening does not know which replicas were carried and which held chunks: it gives no replica a chunk that is another's.
#[test]
fn a_full_log_goes_on_being_cleaned_when_it_was_opened_again() {
    is_cleaned_when_full(Some(narrow()), 3);
}

/// Replicas that were carried are suddenly too large for that, and there are no chunks for them.
#[test]
fn a_full_log_goes_on_being_cleaned_when_less_is_carried_than_before() {
    is_cleaned_when_full(Some(narrow().carry_fraction(1)), 2);
}

/// `free_chunks - reserved_chunks` shows that a log is filling up, and the figures of the error say why the append was refused. So the
/// chunks that appends leave for a large value are not among those shown as free to them.
#[test]
fn a_full_log_has_nothing_free_that_is_not_reserved() {
    for (capacity, len) in [(16 << 20, 3000), (16 << 20, 200_000), (2 << 20, 100)] {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.open_disk(Arc::new(SimDisk::new(capacity))).expect("formatted");
        let fresh = wal.stats();
        assert_eq!(fresh.reserved_chunks, fresh.reserved_for_values, "{fresh:#?}");
        assert!((1..=capacity / 4096 / 32).contains(&fresh.reserved_for_values), "{fresh:#?}");
        let report = 'full: loop {
            for replica in 1..=64 {
                let next = wal.replica(replica).last_index() + 1;
                match wal.commit(Batch::new().append(replica, &[(next, 1, vec![7; len])])) {
                    Ok(_) => {}
                    Err(Error::Full(report)) => break 'full report,
                    Err(other) => panic!("{other}"),
                }
            }
        };
        let stats = wal.stats();
        assert!(stats.free_chunks >= stats.reserved_chunks, "{stats:#?}");
        let unreserved = (stats.free_chunks - stats.reserved_chunks) * stats.chunk_size;
        // Less than would have been enough.
        assert!(
            unreserved < len as u64 + 3 * stats.chunk_size,
            "{unreserved} bytes are free and not reserved: {report}"
        );
        assert_eq!(
            (report.free, report.reserved),
            (stats.free_chunks * stats.chunk_size, stats.reserved_chunks * stats.chunk_size)
        );
        assert!(report.metadata || report.needed > report.free - report.reserved, "{report}");
    }
}

/// More writes than any of these tests has to wait for: then the disk fails, and ends a wait behind a cleaner that would write for ever.
const FOR_EVER: u64 = 30_000;
/// The only replica with entries in the journal.
const LARGE: u64 = 100;
const VALUE_OWNER: u64 = 5000;

/// Chunks that are neither reserved nor kept for a large value.
fn spare(wal: &Wal) -> u64 {
    let s = wal.stats();
    s.free_chunks.saturating_sub(s.reserved_chunks)
}

/// A log in which one replica has most of the journal and reserves nearly all chunks that are left, beside a large value of so many bytes.
fn nearly_full(options: Options, value: usize) -> (Arc<SimDisk>, Wal) {
    let disk = Arc::new(SimDisk::new(256 * (64 << 10) + (64 << 10)));
    let wal = options.open_disk(disk.clone()).expect("formatted");
    wal.commit(Batch::new().put(VALUE_OWNER, b"vote", &[1; 40])).expect("room");
    wal.commit(Batch::new().put(VALUE_OWNER, &[0], &vec![9; value])).expect("room");
    let mut last = 0;
    while spare(&wal) > 170 {
        last += 1;
        let chunks = (spare(&wal) - 170).clamp(3, 30) as usize;
        wal.commit(Batch::new().append(1, &[(last, 1, vec![1; chunks * 4096])])).expect("room");
    }
    wal.checkpoint().expect("cleaned");
    for index in 1.. {
        match wal.try_submit(Batch::new().append(LARGE, &[(index, 1, vec![4; 300])])) {
            Ok(_) if index % 10 == 0 => _ = wal.sync().expect("written"),
            Ok(_) => {}
            Err(Error::Full(_)) => break,
            Err(error) => panic!("{index}: {error}: {:#?}", wal.stats()),
        }
    }
    wal.sync().expect("written");
    assert!(wal.stats().reserved_for_values == 128 && spare(&wal) < 3);
    (disk, wal)
}

/// What is asked for first after an opening: a vote of the same length, a truncation, a removal.
const FIRST: [&str; 3] = ["vote", "truncation", "removal"];

fn first(what: &str, wal: &Wal) -> Batch {
    let mut batch = Batch::new();
    match what {
        "vote" => batch.put(VALUE_OWNER, b"vote", &[2; 40]),
        "truncation" => batch.truncate_prefix(LARGE, wal.replica(LARGE).last_index() + 1),
        _ => batch.remove(LARGE),
    };
    batch
}

/// Asserts that a log that was just opened can be drained. A wait that would be endless ends with a failure of the disk.
fn drains(wal: &Wal, disk: &SimDisk, what: &str) {
    let opened = wal.stats();
    disk.fail_at(disk.events() + FOR_EVER, Fault::Error(EIO));
    let outcome = wal.commit(first(what, wal));
    assert!(outcome.is_ok(), "{what}: {outcome:?}: {opened:#?}, {:#?}", wal.stats());
    for round in 0..200 {
        wal.commit(Batch::new().put(VALUE_OWNER, b"vote", &[round; 40])).expect("it does not grow");
    }
    assert!(wal.stats().reserved_chunks <= wal.stats().free_chunks, "{:#?}", wal.stats());
    wal.commit(Batch::new().remove(LARGE)).expect("it frees");
    wal.commit(Batch::new().append(LARGE, &[(1, 1, [5; 3000])])).expect("there is room again");
}

fn goes_on(options: fn() -> Options, crashed: impl Fn() -> SimDisk) {
    for what in FIRST {
        let disk = Arc::new(crashed());
        let wal = options().open_disk(disk.clone()).expect("opened");
        assert_space(&wal, "opened");
        drains(&wal, &disk, what);
        assert_sound(&wal, "drained");
    }
}

/// The larger value gets its chunks once entries were settled for it, and leaves those that are kept for the next one of its length. The
/// chunks that were promised to others are there.
#[test]
fn a_log_whose_large_value_has_grown_goes_on_when_it_is_opened_again() {
    let grown = |options: Options| {
        let (disk, wal) = nearly_full(options, 8000);
        wal.commit(Batch::new().put(VALUE_OWNER, &[0], &[8; 30_000])).expect("there is room once entries are settled");
        wal.commit(Batch::new().put(VALUE_OWNER, &[0], &[7; 30_000])).expect("it is kept for that");
        wal.commit(Batch::new().put(VALUE_OWNER, b"vote", &[3; 40])).expect("alive it goes on");
        (disk, wal)
    };
    goes_on(narrow, || grown(narrow()).0.crash_lost_all());
    goes_on(|| narrow().background(true), || grown(narrow()).0.crash_lost_all());
    goes_on(narrow, || {
        let (disk, wal) = grown(narrow());
        wal.close().expect("closed");
        disk.restart()
    });
}

/// Two values of the same length in one frame: the chunks of the first are not free until another frame is durable.
#[test]
fn a_log_whose_large_value_was_put_twice_goes_on_when_it_is_opened_again() {
    goes_on(narrow, || {
        let (disk, wal) = nearly_full(narrow(), 8000);
        for byte in [7, 8] {
            drop(wal.submit(Batch::new().put(VALUE_OWNER, &[0], &[byte; 8000])).expect("it is kept for that"));
        }
        wal.sync().expect("written");
        disk.crash_lost_all()
    });
}

/// Damage splits runs, and nobody had reserved for that: the chunks kept for large values pay for it. Here these are spent, as a value was
/// put again and again in the last frame. Runs that find no chunk are carried, far beyond what a journal should carry.
#[test]
fn a_log_that_has_lost_frames_and_lacks_chunks_goes_on_when_it_is_opened_again() {
    const SEGMENT: usize = 64 << 10;
    let (disk, wal) = nearly_full(narrow(), 30_000);
    for byte in 0..16 {
        drop(wal.submit(Batch::new().put(VALUE_OWNER, &[0], &[byte; 30_000])).expect("it is kept for that"));
    }
    wal.sync().expect("written");
    drop(wal);
    let image = disk.crash_lost_all().kept_image();
    // Frames with its entries, in the middle of segments.
    let in_the_midst = |at: &usize| (2 * 4096..14 * 4096).contains(&(at % SEGMENT));
    let is_frame = |at: &usize| image[*at..].starts_with(b"SFRM");
    let of_large = |at: &usize| image[*at..*at + 4096].windows(300).any(|bytes| bytes == [4; 300]);
    let frames: Vec<usize> =
        (0..image.len()).step_by(4096).filter(|at| in_the_midst(at) && is_frame(at) && of_large(at)).collect();
    let mut carried_beyond = 0;
    for (nth, what) in (2..9).flat_map(|nth| FIRST.map(|what| (nth, what))) {
        for options in [narrow(), narrow().background(true)] {
            let disk = Arc::new(SimDisk::from_image(image.clone()));
            frames.iter().step_by(nth).for_each(|&at| disk.poke(at as u64, &[0xee; 4096]));
            let wal = options.open_disk(disk.clone()).expect("opened");
            let opened = wal.stats();
            assert!(opened.reserved_chunks <= opened.free_chunks && !wal.damage().is_empty(), "{opened:#?}");
            carried_beyond += u64::from(opened.carried_class_bytes > opened.carried_class_limit);
            if nth % 2 == 0 {
                // As much is settled as finds chunks, so that little is lacking.
                wal.checkpoint().expect("cleaned");
                assert_space(&wal, "cleaned");
            }
            drains(&wal, &disk, what);
            assert_space(&wal, "drained");
        }
    }
    assert!(carried_beyond > 20, "{carried_beyond} of 42");
}
