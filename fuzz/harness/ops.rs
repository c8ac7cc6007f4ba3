//! `ops`: whatever is asked of the log, sense or nonsense, it answers and does what the reference model answers and does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Bytes, Error, Options, Placement, RecoveryMode, Scrubbed, ScrubbedJournal, Wal};

use super::input::Input;
use super::reference::{Model, Op, Refusal, batch};

/// Ids at both ends; few, so that they meet often.
const IDS: [u64; 4] = [0, 1, 7, u64::MAX];
/// Around every boundary of the smallest geometry.
const SIZES: [usize; 10] = [0, 1, 30, 300, 1500, 4095, 4096, 6200, 9000, 20_000];

/// Runs one input.
///
/// # Panics
/// When the log and the model disagree.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut disk = Arc::new(SimDisk::new(super::DISK));
    let mut wal = super::open(&disk, super::options()).expect("a blank disk is formatted");
    let mut model = Model::default();
    while !input.is_empty() {
        let byte = input.u8();
        // What the upper bits choose costs no byte of the input: the corpora are older.
        let how = byte >> 4;
        match byte % 16 {
            0 if how & 3 == 1 => scrub(&wal),
            0 if how & 3 == 2 => drop(wal.sync().expect("nothing is wrong with the disk")),
            0 => wal.checkpoint().expect("nothing is wrong with the disk"),
            1 => assert!(wal.verify(|_| ()).expect("readable").is_clean()),
            what @ (2 | 3) => {
                if what == 3 {
                    wal.close().expect("nothing is wrong with the disk");
                }
                drop(wal);
                disk = Arc::new(if what == 3 { disk.restart() } else { disk.crash_lost_all() });
                if how & 3 == 1 {
                    looked_at(&disk, &model);
                }
                if how & 3 == 2 && what == 3 {
                    disk = grown(&disk);
                }
                wal = super::open(&disk, options(how)).expect("what was acknowledged opens");
                same(&wal, &model);
            }
            4 => same(&wal, &model),
            _ => step(&wal, &mut model, &mut input),
        }
    }
    same(&wal, &model);
}

/// What an opening may choose anew.
fn options(how: u8) -> Options {
    let placement = [Placement::Auto, Placement::Journal, Placement::Chain][usize::from(how >> 2) % 3];
    let mode = if how & 3 == 3 { RecoveryMode::Strict } else { RecoveryMode::TolerateTornTail };
    super::options().placement(placement).recovery_mode(mode)
}

/// A scrub finds nothing: nothing rotted.
fn scrub(wal: &Wal) {
    let sound = |found: &Scrubbed| {
        assert!(found.damage.is_empty() && found.structure.is_empty(), "{found:?}");
        ControlFlow::Continue(())
    };
    assert_eq!(wal.scrub(u64::MAX, sound).expect("readable"), ScrubbedJournal::default());
}

/// A read-only opening finds the same, in the journal; so does a salvage into a new log.
fn looked_at(disk: &SimDisk, model: &Model) {
    for mode in [RecoveryMode::Strict, RecoveryMode::Salvage] {
        // A log gives up its disk: the next one opens a copy.
        let disk = Arc::new(disk.clone());
        let wal = super::open(&disk, super::options().read_only(true).recovery_mode(mode)).expect("opens for reading");
        same(&wal, model);
        if mode == RecoveryMode::Salvage {
            let capacity = disk.len() + disk.len() / 2;
            let fresh = Arc::new(SimDisk::new(capacity));
            let copy = super::open(&fresh, super::options().capacity(capacity)).expect("a blank disk is formatted");
            assert!(wal.salvage_into(&copy, |_| ()).expect("there is room").is_whole());
            same(&copy, model);
        }
    }
}

/// The closed log in a longer file, unless that would be too large.
fn grown(disk: &SimDisk) -> Arc<SimDisk> {
    let image = disk.kept_image();
    let capacity = image.len() as u64 + 2 * u64::from(super::SEGMENT);
    if capacity > 2 * super::DISK {
        return Arc::new(disk.restart());
    }
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let name = format!("strandlog-grown-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, image).expect("room for a small file");
    let outcome = strandlog::grow(&path, capacity, |_| ());
    let image = std::fs::read(&path).expect("it was written");
    std::fs::remove_file(&path).expect("nobody else's");
    outcome.expect("a closed log grows");
    Arc::new(SimDisk::from_image(image))
}

fn same(wal: &Wal, model: &Model) {
    let found = Model::read(wal).expect("readable");
    assert!(found == *model, "{}", model.difference(&found));
}

fn step(wal: &Wal, model: &mut Model, input: &mut Input<'_>) {
    let ops: Vec<Op> = (0..1 + input.below(4)).map(|_| op(model, input)).collect();
    let predicted = model.predict(&ops);
    match (wal.commit(batch(&ops)), predicted) {
        (Ok(_), Ok(())) => model.apply(&ops),
        (Err(error), Err(refusal)) => assert_eq!(Refusal::of(&error), Some(refusal), "{error} for {ops:?}"),
        (Err(Error::Full(_)), Ok(())) => {
            // A truncation always succeeds.
            let Some((&id, rep)) = model.reps.iter().max_by_key(|(_, r)| r.bytes()) else { return };
            let Some(first) = rep.last().checked_add(1) else { return };
            let room = [Op::Truncate { replica: id, first }];
            wal.commit(batch(&room)).expect("a full log takes truncations");
            model.apply(&room);
        }
        (Err(Error::BatchTooLarge { .. }), Ok(())) => {}
        (outcome, predicted) => panic!("{outcome:?}, not {predicted:?}, for {ops:?}"),
    }
}

fn op(model: &Model, input: &mut Input<'_>) -> Op {
    let what = input.u8();
    let replica = IDS[usize::from(what >> 4) % IDS.len()];
    let (first, last) = model.reps.get(&replica).map_or((1, 0), |r| (r.first, r.last()));
    match what & 15 {
        0..=5 => append(replica, last.saturating_add(1), input),
        6 => append(replica, first.saturating_add(input.u8().into()).min(last.max(1)), input),
        7 => append(replica, input.number(last), input),
        8 => Op::Put { replica, key: vec![input.u8() & 3], value: bytes(input) },
        9 => Op::Delete { replica, key: vec![input.u8() & 3] },
        10 | 11 => Op::Truncate { replica, first: first.saturating_add(input.u8().into()).min(last.saturating_add(1)) },
        12 => Op::Truncate { replica, first: input.number(last) },
        13 => Op::Reset { replica, index: last.saturating_add(input.u8().into()), term: input.u8().into() },
        14 => Op::Reset { replica, index: input.number(last), term: input.number(1) },
        _ => Op::Remove { replica },
    }
}

fn append(replica: u64, from: u64, input: &mut Input<'_>) -> Op {
    let shape = input.u8();
    let term = u64::from(shape >> 5);
    if shape & 3 == 0 {
        // Nothing replaces what goes.
        return Op::Cut { replica, from };
    }
    // Not beyond the last possible index: such a run cannot even be written down.
    let entries = (0..u64::from(shape & 3)).filter_map(|i| Some((from.checked_add(i)?, term, bytes(input)))).collect();
    Op::Append { replica, entries }
}

fn bytes(input: &mut Input<'_>) -> Bytes {
    let (len, fill) = (SIZES[input.below(SIZES.len())], input.u8());
    (0..len).map(|i| fill.wrapping_add((i >> 4) as u8)).collect::<Vec<u8>>().into()
}
