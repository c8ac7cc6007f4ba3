//! Whatever frames are lost: what is told as sound, by a salvage, its copy or an opening, is how it stood in the end.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig::{frames, open};
use super::{Found, read_superblock};
use crate::disk::Disk;
use crate::disk::sim::{EIO, SimDisk};
use crate::operation::What;
use crate::options::{Options, RecoveryMode};
use crate::sync::Arc;
use crate::{Batch, Wal};

const REPLICAS: std::ops::Range<u64> = 1..5;
const KEYS: std::ops::Range<u8> = 0..3;

/// How a replica stood.
#[derive(Clone, Default, Debug)]
struct Model {
    first: u64,
    last: u64,
    prev_term: u64,
    entries: BTreeMap<u64, (u64, Vec<u8>)>,
    keys: BTreeMap<u8, Vec<u8>>,
}

impl Model {
    fn new() -> Self {
        Self { first: 1, ..Self::default() }
    }
}

fn options() -> Options {
    Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(8 << 10).background(false)
}

/// One random operation on a replica that stood like this: the batch, and how the replica stands then.
fn operation(rng: &mut StdRng, (id, was): (u64, Option<&Model>), salt: u64) -> Option<(Batch, Model)> {
    let mut batch = Batch::new();
    let mut m = was.cloned().unwrap_or_else(Model::new);
    match rng.random_range(0..12) {
        0..4 => {
            let from = rng.random_range(m.first.max(m.last.saturating_sub(3))..=m.last + 1);
            let (n, len) =
                (rng.random_range(1..4), if rng.random_bool(0.2) { 9000 } else { rng.random_range(0..2000) });
            let entries: Vec<_> = (from..from + n).map(|i| (i, salt, vec![salt as u8; len])).collect();
            batch.append(id, &entries);
            m.entries.split_off(&from);
            m.entries.extend(entries.into_iter().map(|(i, term, data)| (i, (term, data))));
            m.last = from + n - 1;
        }
        4..7 => {
            let len = if rng.random_bool(0.1) { 6000 } else { rng.random_range(0..500) };
            let (key, value) = (rng.random_range(KEYS), vec![salt as u8; len]);
            batch.put(id, &[key], &value);
            m.keys.insert(key, value);
        }
        7 if was.is_some() => {
            let first = rng.random_range(m.first..=m.last + 1);
            batch.truncate_prefix(id, first);
            if first > m.first {
                m.prev_term = m.entries.get(&(first - 1)).expect("held").0;
                m.entries = m.entries.split_off(&first);
                m.first = first;
            }
        }
        8 if was.is_some() => drop(batch.remove(id)),
        9 => {
            let index = rng.random_range(0..20);
            batch.install_snapshot(id, index, salt);
            (m.first, m.last, m.prev_term) = (index + 1, index, if index == 0 { 0 } else { salt });
            m.entries.clear();
        }
        10 if was.is_some() && m.last > m.first => {
            let from = rng.random_range(m.first..=m.last);
            batch.truncate_suffix(id, from);
            m.entries.split_off(&from);
            m.last = from - 1;
        }
        _ => return None,
    }
    Some((batch, m))
}

/// A log that was worked on and cleaned, never closed, and how it stood; with a frame of another behind all.
fn log(rng: &mut StdRng) -> (SimDisk, BTreeMap<u64, Model>) {
    let (disk, mut models) = (Arc::new(SimDisk::new(4 << 20)), BTreeMap::new());
    let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    work(rng, &wal, &mut models);
    for i in 0..3 {
        wal.commit(Batch::new().put(99, b"k", &[i])).expect("room");
    }
    (disk.restart(), models)
}

/// Some operations, durable in the end, and what they make of the replicas.
fn work(rng: &mut StdRng, wal: &Wal, models: &mut BTreeMap<u64, Model>) {
    for salt in 1..=rng.random_range(20..120) {
        let id = rng.random_range(REPLICAS);
        let Some((mut batch, model)) = operation(rng, (id, models.get(&id)), salt) else {
            let end = wal.engine.seq.lock().segments.current();
            let mut one = wal.engine.cleaning.lock();
            wal.engine.clean_oldest(end, &mut one).expect("cleaned");
            continue;
        };
        let removed = batch.ops.iter().any(|op| matches!(op.what, What::Remove));
        if rng.random_bool(0.3) {
            drop(wal.submit(&mut batch).expect("room"));
        } else {
            wal.commit(&mut batch).expect("room");
        }
        if removed {
            models.remove(&id);
        } else {
            models.insert(id, model);
        }
    }
    wal.sync().expect("durable");
}

/// Runs of neighbouring frames are lost, but for the last ones: those say that all before them was durable.
fn lose_some(rng: &mut StdRng, disk: &SimDisk) {
    let all = frames(disk);
    let Some(last) = all.len().checked_sub(3).filter(|&last| last > 4) else { return };
    for _ in 0..rng.random_range(1..3) {
        let from = rng.random_range(0..last);
        let to = (from + rng.random_range(1..4)).min(last);
        for frame in &all[from..to] {
            if rng.random_bool(0.9) {
                disk.poke(frame.0, &[0xee; 4096]);
            }
        }
    }
}

/// How many answers were sound, all of which are right. `unnamed`: a replica may be gone without a trace.
fn right(wal: &Wal, models: &BTreeMap<u64, Model>, unnamed: bool, what: &str) -> u64 {
    let mut sound = 0;
    for id in REPLICAS {
        let (replica, model) = (wal.replica(id), models.get(&id));
        if !replica.exists() {
            assert!(model.is_none() || unnamed, "{what}, replica {id} is gone");
            continue;
        }
        let whole = replica.damage().is_empty();
        assert!(model.is_some() || !whole, "{what}, replica {id} was removed");
        let never = Model::new();
        let stood = model.unwrap_or(&never);
        for key in KEYS {
            if let Ok(value) = replica.get(&[key]) {
                sound += 1;
                assert!(value.as_deref() == stood.keys.get(&key).map(|v| &v[..]), "{what}, replica {id}, key {key}");
            }
        }
        let (first, last) = replica.bounds();
        assert!(!whole || (first, last) == (stood.first, stood.last), "{what}, replica {id}: {first} to {last}");
        for index in first..=last {
            if let Ok(entry) = replica.entry(index) {
                sound += 1;
                let told = Some((entry.term, &entry.data[..]));
                let stood = stood.entries.get(&index).map(|(term, data)| (*term, &data[..]));
                assert!(told == stood, "{what}, replica {id}, entry {index} of term {}", entry.term);
            }
        }
        if let Ok(term) = replica.term(first - 1)
            && whole
            && first > 1
        {
            assert_eq!(term, stood.prev_term, "{what}, replica {id}, before the first");
        }
    }
    sound
}

#[test]
fn what_is_told_as_sound_is_how_it_stood() {
    let from = std::env::var("STRANDLOG_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    let count = std::env::var("STRANDLOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let (mut opened, mut salvaged, mut sound) = (0, 0, 0_u64);
    for seed in from..from + count {
        let mut rng = StdRng::seed_from_u64(seed);
        let (disk, models) = log(&mut rng);
        lose_some(&mut rng, &disk);
        if let Ok(wal) = open(&disk, options().recovery_mode(RecoveryMode::Salvage)) {
            sound += right(&wal, &models, wal.stats().unnamed_losses > 0, &format!("seed {seed}, a salvage"));
            let copy = options().open_disk(Arc::new(SimDisk::new(8 << 20))).expect("formatted");
            wal.salvage_into(&copy, |_| ()).expect("room");
            sound += right(&copy, &models, true, &format!("seed {seed}, its copy"));
            salvaged += 1;
        }
        // Worked on, cleaned, opened once more: nothing that is damaged becomes sound.
        let disk = Arc::new(disk.restart());
        let Ok(wal) = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>) else { continue };
        opened += 1;
        sound += right(&wal, &models, false, &format!("seed {seed}, opened"));
        wal.commit(Batch::new().put(99, b"k", b"more")).expect("room");
        if rng.random_bool(0.3) {
            wal.engine.clean_all().expect("cleaned");
        }
        sound += right(&wal, &models, false, &format!("seed {seed}, worked on"));
        if rng.random_bool(0.5) {
            wal.close().expect("closed");
        }
        let damage = wal.damage();
        drop(wal);
        let wal = open(&disk.restart(), options()).expect("opened again");
        sound += right(&wal, &models, false, &format!("seed {seed}, opened again"));
        assert_eq!(wal.damage(), damage, "seed {seed}");
    }
    assert!(count < 300 || opened > 100 && salvaged > 250 && sound > 10_000, "{opened} {salvaged} {sound}");
}

/// A bad sector wherever a frame lies or could, in a log that was killed, again and again: what a salvage says to be whole is so.
#[test]
fn what_a_salvage_misses_over_a_bad_sector_is_damage_or_unnamed() {
    let (mut unnamed, mut missed, mut named) = (0, 0, 0);
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut disk, mut models) = (Arc::new(SimDisk::new(2 << 20)), BTreeMap::new());
        for _ in 0..rng.random_range(1..4) {
            let wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
            work(&mut rng, &wal, &mut models);
            disk = Arc::new(disk.restart());
        }
        let Ok(Found::Log(sb)) = read_superblock(&*disk, true) else { panic!("a log") };
        let all = frames(&disk);
        let newest = all.iter().rev().take(3).flat_map(|frame| [frame.0, frame.1]);
        let fronts = sb.journal_slabs.iter().map(|&slab| sb.slab_offset(slab));
        for at in newest.chain(fronts) {
            let disk = disk.restart();
            disk.fail_reads(at..at + 512, EIO);
            let wal = open(&disk, options().recovery_mode(RecoveryMode::Salvage)).expect("a salvage");
            if wal.stats().unnamed_losses == 0 {
                named += 1;
                right(&wal, &models, false, &format!("seed {seed}, {at}"));
            } else {
                unnamed += 1;
                missed += u64::from(all.iter().any(|frame| frame.0 == at));
            }
        }
    }
    assert!(named > unnamed && missed > 0, "{named} named, {unnamed} not, of these {missed} over a frame");
}
