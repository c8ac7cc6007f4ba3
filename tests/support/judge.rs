//! A specimen: a log with every structure that a log can hold; and a judge of what is left of it once its bytes were damaged.
//!
//! Each case must end in one of three ways: no effect; a typed report that names the replica, all others byte-exact and writable; or
//! a refusal to open that says what is broken. **Never silent loss, never wrong bytes.**

use std::collections::BTreeMap;
use std::sync::Arc;

use strandlog::disk::Disk;
use strandlog::disk::sim::SimDisk;
use strandlog::{Batch, Error, Lost, Options, Placement, Stats, Wal};

use super::model::{Model, Op, Rep, batch};
use super::{payload, small};

/// The smallest log in which everything moves.
pub const CAPACITY: u64 = 12 * (64 << 10) + (64 << 10);

pub fn options() -> Options {
    small(Placement::Auto).journal_cap(6 * (64 << 10)).queue_bytes(1 << 20)
}

fn entries(replica: u64, from: u64, term: u64, lens: &[usize]) -> Op {
    let entries = (from..).zip(lens).map(|(i, &len)| (i, term, payload(replica, i, term, len))).collect();
    Op::Append { replica, entries }
}

fn put(replica: u64, key: &[u8], len: usize, salt: u64) -> Op {
    Op::Put { replica, key: key.to_vec(), value: payload(replica, salt, 77, len) }
}

/// The image of a closed log that holds all that a log can hold, with dead remains of what it held before.
pub fn specimen() -> (Vec<u8>, Model) {
    let disk = Arc::new(SimDisk::new(CAPACITY));
    let (model, stats) = write(&disk);
    assert!(stats.settled_entries > 0 && stats.carried_entries > 0 && stats.placed_bytes > 0, "{stats:#?}");
    assert!(stats.segments_cleaned > 6, "{stats:#?}");
    (disk.kept_image(), model)
}

/// Writes that log to the disk, whatever the disk makes of it; returns what was acknowledged.
pub fn write<D: Disk + 'static>(disk: &Arc<D>) -> (Model, Stats) {
    let wal = options().open_disk(Arc::clone(disk) as Arc<dyn Disk>).expect("opened");
    let mut model = Model::default();
    let mut commit = |ops: Vec<Op>| {
        wal.commit(batch(&ops)).expect("committed");
        model.apply(&ops);
    };
    // Entries settled later, carried later, placed; a value in a piece of its own; then truncated, removed, reset, overwritten, cut.
    commit(vec![entries(1, 1, 1, &[600; 20]), entries(2, 1, 1, &[40; 4]), put(2, b"hard_state", 24, 1)]);
    commit(vec![entries(3, 1, 1, &[6000, 6000]), put(4, b"snapshot", 9000, 1), entries(4, 1, 2, &[10])]);
    commit(vec![entries(5, 1, 1, &[300; 12]), entries(6, 1, 1, &[300; 5]), put(6, b"k", 10, 1)]);
    commit(vec![entries(7, 1, 3, &[200; 6]), put(7, b"applied", 8, 1), entries(8, 1, 1, &[250; 10])]);
    commit(vec![Op::Truncate { replica: 5, first: 9 }, Op::Remove { replica: 6 }]);
    commit(vec![Op::Reset { replica: 7, index: 40, term: 5 }, entries(7, 41, 5, &[100; 3])]);
    commit(vec![entries(8, 6, 2, &[270; 3]), put(4, b"snapshot", 8000, 2), entries(3, 2, 4, &[7000, 5000])]);
    // Go through all segments, so that what is alive was moved and dead segments lie about.
    for i in 1..=90 {
        commit(vec![entries(9, i, 1, &[7000]), Op::Truncate { replica: 9, first: i }, put(9, b"applied", 8, i)]);
        if i % 10 == 0 {
            wal.checkpoint().expect("cleaned");
        }
    }
    commit(vec![
        entries(2, 5, 2, &[0, 1, 60]),
        entries(1, 21, 2, &[500; 3]),
        Op::Delete { replica: 9, key: b"no".to_vec() },
        Op::Cut { replica: 8, from: 7 },
    ]);
    let stats = wal.stats();
    wal.close().expect("closed");
    (model, stats)
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    NoEffect,
    Reported(usize),
    Refused(String),
}

/// Opens the damaged image, and judges all that the log answers.
pub fn judge(image: Vec<u8>, model: &Model) -> Result<End, String> {
    judge_on(&Arc::new(SimDisk::from_image(image)), model)
}

/// As [`judge`], on a disk that may have faults of its own.
pub fn judge_on(disk: &Arc<SimDisk>, model: &Model) -> Result<End, String> {
    let wal = match options().open_disk(Arc::clone(disk) as Arc<dyn Disk>) {
        Ok(wal) => wal,
        Err(Error::Corrupt { what, .. }) => return Ok(End::Refused(what.to_owned())),
        Err(Error::Unsupported { .. }) => return Ok(End::Refused("an unknown feature".to_owned())),
        Err(other) => return Err(format!("refused for no good reason: {other:?}")),
    };
    let hurt = look(&wal, model)?;
    // The undamaged replicas are writable, and the log goes on.
    let mut work = Batch::new();
    for (&id, rep) in model.reps.iter().filter(|(id, _)| !hurt.contains_key(*id)) {
        work.append(id, &[(rep.last() + 1, 9, payload(id, rep.last() + 1, 9, 33))]);
    }
    if let Err(error) = wal.commit(work) {
        return Err(format!("a whole replica takes no entry: {error}"));
    }
    if hurt.is_empty() {
        return Ok(End::NoEffect);
    }
    wal.checkpoint().map_err(|e| format!("cannot be cleaned: {e}"))?;
    drop(wal);
    // The damage is still known after cleaning and reopening, and has spread to no other replica.
    let wal = super::open(options(), &Arc::new(disk.restart()));
    let mut after = model.clone();
    for (&id, rep) in &mut after.reps {
        if !hurt.contains_key(&id) {
            let next = rep.last() + 1;
            rep.entries.insert(next, (9, payload(id, next, 9, 33)));
        }
    }
    let still = look(&wal, &after).map_err(|e| format!("opened anew: {e}"))?;
    if let Some(new) = still.keys().find(|id| !hurt.contains_key(*id)) {
        return Err(format!("replica {new} was hurt afterwards: {still:?}"));
    }
    Ok(End::Reported(hurt.len()))
}

/// The replicas that are not whole, and what the log reports of each. An error is what must never be: silent loss, wrong bytes.
fn look(wal: &Wal, model: &Model) -> Result<BTreeMap<u64, String>, String> {
    let mut hurt: BTreeMap<u64, String> = BTreeMap::new();
    for damage in wal.damage() {
        hurt.insert(damage.replica, format!("{damage:?}"));
    }
    for id in wal.replicas() {
        if !model.reps.contains_key(&id) && !hurt.contains_key(&id) {
            return Err(format!("replica {id} does not exist, and comes back undamaged"));
        }
    }
    for (&id, rep) in &model.reps {
        if let Some(why) = look_at(wal, id, rep, hurt.contains_key(&id))? {
            hurt.entry(id).or_insert(why);
        }
    }
    Ok(hurt)
}

/// What the log reports of a replica that is not whole; `None` if it is whole.
fn look_at(wal: &Wal, id: u64, rep: &Rep, known: bool) -> Result<Option<String>, String> {
    let r = wal.replica(id);
    let (first, last) = r.bounds();
    if (first, last) != (rep.first, rep.last()) && !known {
        return Err(format!("replica {id} silently holds {first}..={last}, not {}..={}", rep.first, rep.last()));
    }
    let mut why = None;
    for (&index, (term, data)) in &rep.entries {
        match r.entry(index) {
            Ok(e) if e.term == *term && e.data == *data => {}
            Ok(e) => {
                return Err(format!("replica {id}, entry {index}: wrong: {} bytes of term {}", e.data.len(), e.term));
            }
            Err(Error::Damaged(d)) => match d.lost {
                Lost::Entries { first, last } if d.replica == id && first <= index && index <= last => {
                    why = Some(format!("{d:?}"));
                }
                _ => return Err(format!("replica {id}, entry {index}: names something else: {d:?}")),
            },
            Err(_) if known => {}
            Err(other) => return Err(format!("replica {id}, entry {index}: {other:?}")),
        }
    }
    if !known && why.is_none() && r.term(rep.first - 1).ok() != Some(rep.prev_term) {
        return Err(format!("replica {id}: the term before its first entry is {:?}", r.term(rep.first - 1)));
    }
    for (key, value) in &rep.keys {
        match r.get(key) {
            Ok(Some(found)) if found == *value => {}
            Err(Error::Damaged(d)) if d.replica == id => why = Some(format!("{d:?}")),
            other => return Err(format!("replica {id}: the value of {key:x?} is {other:?}")),
        }
    }
    if !known && why.is_none() && r.keys().len() != rep.keys.len() {
        return Err(format!("replica {id} holds keys that were deleted"));
    }
    Ok(why)
}
