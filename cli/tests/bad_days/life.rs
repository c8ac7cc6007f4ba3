//! Logs of every shape, made on the simulated disk in several sessions: grown, damaged in use, killed and closed.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use strandlog::disk::Disk;
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::{Batch, Error, Lost, Options, Placement, Wal};

use crate::model::{History, Log, Replica, read};

pub const BLOCK: usize = 4096;
const IDS: [u64; 6] = [0, 1, 2, 7, 1 << 40, u64::MAX];
const KEYS: [&[u8]; 6] = [b"vote", b"", b"\xff\x00key", b"hex:6b", "a \"key\"\nof two lines".as_bytes(), &[b'k'; 256]];
/// The replica of the last batches of a session: the last frames may be taken for a torn end.
pub const LAST: u64 = 99;

/// A log, and its acknowledged state.
pub struct Made {
    pub image: Vec<u8>,
    pub stood: Log,
    /// The other possible state, if one batch was under way when the power went.
    pub or: Option<Log>,
    pub history: History,
    /// An earlier state of the file.
    pub old: Vec<u8>,
    /// Blocks of the last frames, where rot looks like a torn end.
    pub newest: Vec<usize>,
    pub closed: bool,
    pub segment: u64,
    pub what: String,
}

/// What is fixed when a log is created.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    segment: u32,
    chunk: u32,
    capacity: u64,
    cap: Option<u64>,
}

impl Shape {
    fn random(rng: &mut SmallRng) -> Self {
        let segment = [64 << 10, 64 << 10, 128 << 10, 256 << 10][rng.random_range(0..4)];
        let chunk = [4 << 10, 8 << 10, 32 << 10, 64 << 10][rng.random_range(0..4)];
        let capacity = u64::from(segment) * rng.random_range(12..24) + rng.random_range(17..40) * 4096;
        let cap = rng.random_bool(0.3).then(|| u64::from(segment) * rng.random_range(6..10));
        Self { segment, chunk, capacity, cap }
    }

    fn options(self, rng: &mut SmallRng) -> Options {
        let mut options = Wal::options().capacity(self.capacity).segment_size(self.segment).chunk_size(self.chunk);
        if let Some(cap) = self.cap {
            options = options.journal_cap(cap);
        }
        options
            .placement([Placement::Auto, Placement::Auto, Placement::Journal, Placement::Chain][rng.random_range(0..4)])
            .direct_threshold([4 << 10, 8 << 10, 64 << 10][rng.random_range(0..3)])
            .carry_fraction([1, 20, 50, 100][rng.random_range(0..4)])
            .recent_bytes(1 << 20)
            .background(false)
    }
}

fn data(salt: u64, len: usize) -> Vec<u8> {
    salt.to_le_bytes().iter().copied().cycle().take(len).collect()
}

fn put(rng: &mut SmallRng, batch: &mut Batch, id: u64, is: &mut Replica, salt: u64) {
    let len = match rng.random_range(0..10) {
        0 => 6000,
        1 => 30_000,
        2 => 0,
        _ => rng.random_range(1..600),
    };
    let key = KEYS[rng.random_range(0..KEYS.len())];
    batch.put(id, key, &data(salt, len));
    is.keys.insert(key.to_vec(), data(salt, len));
}

fn append(rng: &mut SmallRng, batch: &mut Batch, id: u64, is: &mut Replica, salt: u64) {
    let from = if rng.random_bool(0.8) { is.last } else { rng.random_range(is.last.saturating_sub(4)..=is.last) };
    let Some(from) = from.max(is.first - 1).checked_add(1) else { return };
    let n = if rng.random_bool(0.2) { rng.random_range(5..40) } else { rng.random_range(1..5) };
    let n = n.min((u64::MAX - from).saturating_add(1));
    let len = match rng.random_range(0..20) {
        _ if n > 5 => rng.random_range(0..60),
        0..3 => 9000,
        3 => 70_000,
        4 => 0,
        _ => rng.random_range(0..2500),
    };
    let entries: Vec<_> =
        (from..=from + (n - 1)).map(|i| (i, salt, data(salt.wrapping_mul(1000).wrapping_add(i), len))).collect();
    batch.append(id, &entries);
    is.cut(from);
    is.last = from + (n - 1);
    is.entries.extend(entries.into_iter().map(|(i, t, d)| (i, (t, d))));
}

/// A random batch, and the state of the log after it.
fn step(rng: &mut SmallRng, log: &Log, salt: u64) -> Option<(Batch, Log)> {
    let (mut batch, mut next) = (Batch::new(), log.clone());
    let id = IDS[rng.random_range(0..IDS.len())];
    let was = log.get(&id);
    let is = next.entry(id).or_insert_with(Replica::new);
    match rng.random_range(0..16) {
        0..5 => append(rng, &mut batch, id, is, salt),
        5..7 => put(rng, &mut batch, id, is, salt),
        7 => {
            append(rng, &mut batch, id, is, salt);
            put(rng, &mut batch, id, is, salt);
        }
        8 => {
            was?;
            let key = KEYS[rng.random_range(0..KEYS.len())];
            batch.delete(id, key);
            is.keys.remove(key);
        }
        9 | 10 => {
            was?;
            let most = is.applied.map_or(is.last, |applied| applied.min(is.last)).saturating_add(1);
            let first = rng.random_range(is.first..=most.max(is.first));
            batch.truncate_prefix(id, first);
            is.truncate(first);
        }
        11 => {
            was?;
            batch.remove(id);
            next.remove(&id);
        }
        12 => {
            let index = match rng.random_range(0..8) {
                0 => 0,
                1 => u64::MAX - rng.random_range(2..40),
                _ => rng.random_range(0..1000),
            };
            batch.install_snapshot(id, index, salt);
            is.entries.clear();
            (is.first, is.last, is.before) = (index + 1, index, Some(if index == 0 { 0 } else { salt }));
            is.applied = is.applied.map(|applied| applied.min(index));
        }
        13 => {
            if was.is_none_or(|was| was.last < was.first) {
                return None;
            }
            let from = rng.random_range(is.first..=is.last);
            batch.truncate_suffix(id, from);
            is.cut(from);
        }
        14 => {
            was?;
            let index = rng.random_range(is.first - 1..=is.last);
            batch.durable_applied(id, index);
            is.applied = Some(is.applied.map_or(index, |applied| applied.max(index)));
        }
        _ => {
            next.clone_from(log);
            for id in IDS {
                if rng.random_bool(0.5) {
                    let is = next.entry(id).or_insert_with(Replica::new);
                    append(rng, &mut batch, id, is, salt);
                    put(rng, &mut batch, id, is, salt);
                }
            }
        }
    }
    (!batch.is_empty()).then_some((batch, next))
}

fn note(history: &mut History, log: &Log) {
    for (&id, replica) in log {
        history.extend(replica.entries.iter().map(|(&i, (t, d))| (id, i, *t, d.clone())));
    }
}

/// Rots an entry while the log is in use, and has a scrub find it.
fn quarantine(rng: &mut SmallRng, wal: &Wal, disk: &SimDisk, log: &mut Log) {
    wal.sync().expect("durable");
    let all: Vec<_> = log.values().flat_map(|r| r.entries.values()).filter(|(_, data)| data.len() > 64).collect();
    if all.is_empty() {
        return;
    }
    let (_, data) = all[rng.random_range(0..all.len())];
    let image = disk.kept_image();
    let Some(at) = image.windows(64).position(|w| w == &data[..64]) else { return };
    disk.flip_bit(at as u64 + 20, 3);
    match wal.scrub(u64::MAX, |_| ControlFlow::Continue(())) {
        Ok(_) | Err(Error::Full(_)) => {}
        Err(error) => panic!("scrubbed: {error}"),
    }
    for damage in wal.damage() {
        let Lost::Entries { first, last } = damage.lost else { panic!("{damage}") };
        let is = log.get_mut(&damage.replica).expect("there");
        is.entries.retain(|index, _| !(first..=last).contains(index));
        if (first..=last).contains(&(is.first - 1)) {
            is.before = None;
        }
    }
}

/// Makes a log. `dir` is for growing, which needs a file.
pub fn make(rng: &mut SmallRng, dir: &Path) -> Made {
    let shape = Shape::random(rng);
    let mut what = format!("{shape:?}");
    let mut disk = Arc::new(SimDisk::new(shape.capacity / 4096 * 4096));
    let (mut log, mut or, mut history) = (Log::new(), None, History::new());
    let (mut salt, mut closed, mut newest, mut old) = (0, false, Vec::new(), disk.kept_image());
    let sessions = rng.random_range(1..4);
    for session in 0..sessions {
        let is_last = session + 1 == sessions;
        let wal = shape.options(rng).open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("opened");
        let told = read(&wal);
        if let Some(other) = or.take()
            && told.log != log
        {
            log = other;
        }
        assert!(told.log == log, "{what}: session {session} opens to something else");
        // Some logs get full.
        let steps = if rng.random_bool(0.15) { rng.random_range(300..900) } else { rng.random_range(3..90) };
        let when = rng.random_range(0..steps);
        for at in 0..steps {
            salt += 1;
            if at == when && !is_last {
                old = disk.kept_image();
            }
            match rng.random_range(0..40) {
                0 => match wal.checkpoint() {
                    Ok(_) | Err(Error::Full(_)) => {}
                    Err(error) => panic!("{what}: {error}"),
                },
                1 if rng.random_bool(0.3) => {
                    what += ", quarantined";
                    quarantine(rng, &wal, &disk, &mut log);
                }
                _ => {
                    let Some((mut batch, next)) = step(rng, &log, salt) else { continue };
                    match wal.commit(&mut batch) {
                        Ok(_) => log = next,
                        Err(Error::Full(_)) => {}
                        Err(error) => panic!("{what}: {error}"),
                    }
                    note(&mut history, &log);
                }
            }
        }
        wal.sync().expect("durable");
        let before = disk.kept_image();
        for n in 0..3_u64 {
            let mut batch = Batch::new();
            batch.put(LAST, b"last", &(salt + n).to_le_bytes());
            if wal.commit(&mut batch).is_ok() {
                let last = log.entry(LAST).or_insert_with(Replica::new);
                last.keys.insert(b"last".to_vec(), (salt + n).to_le_bytes().to_vec());
            }
        }
        closed = false;
        match rng.random_range(0..6) {
            0..3 => {
                wal.close().expect("closed");
                closed = true;
            }
            3 => {
                // The power fails.
                salt += 1;
                disk.fail_at(disk.events() + rng.random_range(0..3), Fault::Cut);
                if let Some((mut batch, next)) = step(rng, &log, salt) {
                    note(&mut history, &next);
                    if wal.commit(&mut batch).is_ok() {
                        log = next;
                    } else {
                        or = Some(next);
                    }
                }
            }
            _ => {}
        }
        what += if closed { ", closed" } else { ", killed" };
        drop(wal);
        let end = if disk.is_cut() { disk.crash_seeded(rng.random()) } else { disk.restart() };
        let image = end.kept_image();
        newest = (0..image.len() / BLOCK).filter(|&b| block(&before, b) != block(&image, b)).collect();
        disk = Arc::new(end);
        if rng.random_bool(0.2) {
            let to = image.len() as u64 + rng.random_range(1..12) * u64::from(shape.segment);
            let path = dir.join("growing");
            std::fs::write(&path, &image).expect("written");
            strandlog::grow(&path, to, |_| ()).expect("grown");
            what += ", grown";
            disk = Arc::new(SimDisk::from_image(std::fs::read(&path).expect("read")));
        }
    }
    note(&mut history, &log);
    old.truncate(disk.len() as usize);
    let segment = shape.segment.into();
    Made { image: disk.kept_image(), stood: log, or, history, old, newest, closed, segment, what }
}

pub fn block(image: &[u8], at: usize) -> &[u8] {
    image.get(at * BLOCK..(at + 1) * BLOCK).unwrap_or(&[])
}
