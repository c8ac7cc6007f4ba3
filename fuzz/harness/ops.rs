//! `ops`: whatever is asked of the log, sense or nonsense, it says and does what the reference model says and does.

use std::sync::Arc;

use strandlog::disk::sim::SimDisk;
use strandlog::{Bytes, Error, Wal};

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
        match input.u8() % 16 {
            0 => wal.checkpoint().expect("nothing is wrong with the disk"),
            1 => assert!(wal.verify(|_| ()).expect("readable").is_clean()),
            what @ (2 | 3) => {
                if what == 3 {
                    wal.close().expect("nothing is wrong with the disk");
                }
                drop(wal);
                disk = Arc::new(if what == 3 { disk.restart() } else { disk.crash_lost_all() });
                wal = super::open(&disk, super::options()).expect("what was acknowledged opens");
                same(&wal, &model);
            }
            4 => same(&wal, &model),
            _ => step(&wal, &mut model, &mut input),
        }
    }
    same(&wal, &model);
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
            // Truncation always gets through.
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
        // Nothing in the place of what goes.
        return Op::Cut { replica, from };
    }
    // Not beyond the last index there is: such a run nobody can even write down.
    let entries = (0..u64::from(shape & 3)).filter_map(|i| Some((from.checked_add(i)?, term, bytes(input)))).collect();
    Op::Append { replica, entries }
}

fn bytes(input: &mut Input<'_>) -> Bytes {
    let (len, fill) = (SIZES[input.below(SIZES.len())], input.u8());
    (0..len).map(|i| fill.wrapping_add((i >> 4) as u8)).collect::<Vec<u8>>().into()
}
