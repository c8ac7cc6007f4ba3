//! Whole lives of logs: random work, rot while they are in use and while they are not, cuts anywhere, growth, salvage. What is told as sound is
//! how it stood, as a model has it; every chunk is in one place; and who was never hurt has no damage.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::scan::scan;
use super::{Found, read_superblock};
use crate::disk::Disk;
use crate::disk::sim::{EIO, Fault, SimDisk};
use crate::format::POOL_OFFSET;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock};
use crate::options::{Options, RecoveryMode};
use crate::sync::Arc;
use crate::{Batch, Error, Lost, Placement, Wal};

const IDS: std::ops::Range<u64> = 1..6;
const KEYS: std::ops::Range<u8> = 0..4;

/// A replica as it stands.
#[derive(Clone, Debug, Default)]
struct Model {
    first: u64,
    last: u64,
    /// `None`: nobody knows it.
    prev_term: Option<u64>,
    entries: BTreeMap<u64, (u64, Vec<u8>)>,
    keys: BTreeMap<u8, Vec<u8>>,
    applied: Option<u64>,
    /// A truncation that waits for the state machine.
    held: Option<u64>,
}

impl Model {
    fn empty() -> Self {
        Self { first: 1, prev_term: Some(0), ..Self::default() }
    }

    fn truncate(&mut self, first: u64) {
        if first > self.first {
            self.prev_term = self.entries.get(&(first - 1)).map(|e| e.0);
            self.entries = self.entries.split_off(&first);
            self.first = first;
        }
    }
}

type Models = BTreeMap<u64, Model>;

fn data(salt: u64, len: usize) -> Vec<u8> {
    salt.to_le_bytes().iter().copied().cycle().take(len).collect()
}

/// Where a frame and its table lie.
struct Frame {
    offset: u64,
    end: u64,
    table: u64,
    table_len: u64,
    lsn: u64,
}

/// All frames, in order of the log.
fn frames(disk: &SimDisk) -> Vec<Frame> {
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { return Vec::new() };
    let Ok(scan) = scan(disk, &sb, RecoveryMode::Strict, &mut |_| ()) else { return Vec::new() };
    let mut all: Vec<Frame> = scan
        .slabs
        .iter()
        .flat_map(|s| &s.frames)
        .map(|f| Frame {
            offset: f.offset,
            end: f.offset + f.header.bytes(),
            table: f.offset + f.header.table_range().start as u64,
            table_len: f.header.table_bytes.into(),
            lsn: f.header.lsn,
        })
        .collect();
    all.sort_by_key(|f| f.lsn);
    all
}

/// Whether its keyed state is suspect.
fn is_suspect(wal: &Wal, id: u64) -> bool {
    wal.replica(id).damage().iter().any(|d| d.lost == Lost::State)
}

/// A log may be full, what is hurt may not be readable, and the power may be off.
fn may_fail<T: std::fmt::Debug>(outcome: crate::Result<T>, disk: &SimDisk, what: &str) {
    match outcome {
        Ok(_) | Err(Error::Full(_) | Error::Io { .. }) => {}
        Err(Error::Poisoned { .. }) if disk.is_cut() => {}
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// What became of an operation.
enum Done {
    /// Nothing changed.
    Nothing,
    /// It is durable, and all before it.
    Durable,
    /// A crash may lose it.
    Submitted,
    /// The power went meanwhile: it may stand so.
    Doubtful(Models),
}

/// Something that a caller asks for, or the cleaner does.
fn operation(rng: &mut StdRng, disk: &SimDisk, wal: &Wal, models: &mut Models, salt: u64, what: &str) -> Done {
    let id = rng.random_range(IDS);
    let was = models.get(&id);
    assert_eq!(was.is_some(), wal.replica(id).exists(), "{what}, replica {id}");
    let suspect = is_suspect(wal, id);
    let mut m = was.cloned().unwrap_or_else(Model::empty);
    let mut batch = Batch::new();
    let mut removed = false;
    let mut clipped = false;
    match rng.random_range(0..17) {
        0..5 => {
            let from = rng.random_range(m.first.max(m.last.saturating_sub(3))..=m.last + 1);
            let many = rng.random_bool(0.3);
            let n = if many { rng.random_range(5..45) } else { rng.random_range(1..5) };
            let len = match rng.random_range(0..20) {
                _ if many => rng.random_range(0..60),
                0..3 => 9000,
                3 => 70_000,
                4 => 0,
                _ => rng.random_range(0..2500),
            };
            let term = |i: u64| salt * 64 + if many { i - from } else { 0 };
            let entries: Vec<_> = (from..from + n).map(|i| (i, term(i), data(salt, len))).collect();
            batch.append(id, &entries);
            m.entries.split_off(&from);
            m.entries.extend(entries.into_iter().map(|(i, t, d)| (i, (t, d))));
            m.last = from + n - 1;
        }
        5..8 => {
            let len = match rng.random_range(0..10) {
                0 => 6000,
                1 => 20_000,
                _ => rng.random_range(0..600),
            };
            let (key, value) = (rng.random_range(KEYS), data(salt, len));
            batch.put(id, &[key], &value);
            m.keys.insert(key, value);
        }
        8 => {
            let key = rng.random_range(KEYS);
            batch.delete(id, &[key]);
            m.keys.remove(&key);
            if was.is_none() {
                return Done::Nothing;
            }
        }
        9 | 10 if was.is_some() => {
            let asked = rng.random_range(m.first..=m.last + 1);
            batch.truncate_prefix(id, asked);
            if suspect {
                // No report is believed, and nothing is truncated beyond one.
                clipped = true;
            } else if let Some(applied) = m.applied {
                if asked > applied + 1 {
                    m.held = Some(m.held.unwrap_or(0).max(asked));
                }
                m.truncate(asked.min(applied + 1));
            } else {
                m.truncate(asked);
            }
        }
        11 if was.is_some() => {
            batch.remove(id);
            removed = true;
        }
        12 => {
            let index = rng.random_range(0..30);
            if rng.random_bool(0.5) {
                let value = data(salt, rng.random_range(0..100));
                batch.put(id, &[0], &value);
                if suspect {
                    m.keys.clear();
                }
                m.keys.insert(0, value);
            } else if suspect {
                m.keys.clear();
            }
            if suspect {
                (m.applied, m.held) = (None, None);
            }
            batch.install_snapshot(id, index, salt);
            (m.applied, m.held) = (m.applied.map(|applied| applied.min(index)), None);
            (m.first, m.last, m.prev_term) = (index + 1, index, Some(if index == 0 { 0 } else { salt }));
            m.entries.clear();
        }
        13 if was.is_some() && m.last >= m.first => {
            let from = rng.random_range(m.first..=m.last);
            batch.truncate_suffix(id, from);
            m.entries.split_off(&from);
            m.last = from - 1;
        }
        14 if was.is_some() => {
            let index = rng.random_range(m.first - 1..=m.last);
            batch.durable_applied(id, index);
            if !suspect && m.applied.is_none_or(|a| a < index) {
                m.applied = Some(index);
                if let Some(held) = m.held {
                    if held <= index + 1 {
                        m.held = None;
                    }
                    m.truncate(held.min(index + 1).min(m.last + 1));
                }
            }
        }
        15 => {
            // Several at once.
            let mut next = models.clone();
            for id in IDS {
                if rng.random_bool(0.5) {
                    let m = next.entry(id).or_insert_with(Model::empty);
                    let at = m.last + 1;
                    batch.append(id, &[(at, salt, data(salt, 300))]).put(id, &[1], &data(salt, 20));
                    m.entries.insert(at, (salt, data(salt, 300)));
                    m.last = at;
                    m.keys.insert(1, data(salt, 20));
                }
            }
            if batch.is_empty() {
                return Done::Nothing;
            }
            return match wal.commit(&mut batch) {
                Ok(_) => {
                    *models = next;
                    Done::Durable
                }
                Err(Error::Poisoned { .. }) if disk.is_cut() => Done::Doubtful(next),
                Err(Error::Full(_) | Error::Io { .. }) => Done::Nothing,
                Err(error) => panic!("{what}: {error:?}"),
            };
        }
        _ => {
            match rng.random_range(0..3) {
                0 => {
                    let end = wal.engine.seq.lock().segments.current();
                    let mut one = wal.engine.cleaning.lock();
                    may_fail(wal.engine.clean_oldest(end, &mut one), disk, what);
                }
                1 => may_fail(wal.checkpoint(), disk, what),
                _ => may_fail(wal.scrub(u64::MAX, |_| ControlFlow::Continue(())), disk, what),
            }
            return Done::Nothing;
        }
    }
    let waits = rng.random_bool(0.7);
    let outcome = if waits { wal.commit(&mut batch).map(drop) } else { wal.submit(&mut batch).map(drop) };
    let before = models.clone();
    let done = match outcome {
        Ok(()) if waits => Done::Durable,
        Ok(()) => Done::Submitted,
        // What it is in memory it may be on the disk.
        Err(Error::Poisoned { .. }) if disk.is_cut() => Done::Doubtful(Models::new()),
        Err(Error::Full(_) | Error::Io { .. }) => return Done::Nothing,
        Err(error) => panic!("{what}, replica {id}: {error:?}"),
    };
    let doubtful = |models: &mut Models| match done {
        Done::Doubtful(_) => Done::Doubtful(std::mem::replace(models, before)),
        done => done,
    };
    if removed {
        models.remove(&id);
        return doubtful(models);
    }
    if clipped {
        let first = wal.replica(id).first_index();
        assert!(first >= m.first);
        m.truncate(first);
    }
    if !disk.is_cut() {
        assert_eq!(wal.replica(id).bounds(), (m.first, m.last), "{what}, replica {id}");
    }
    models.insert(id, m);
    doubtful(models)
}

macro_rules! must {
    ($so:expr, $($why:tt)*) => {
        if !$so {
            return Err(format!($($why)*));
        }
    };
}
macro_rules! must_eq {
    ($a:expr, $b:expr, $($why:tt)*) => {
        let (a, b) = ($a, $b);
        must!(a == b, "{}: {a:?}, not {b:?}", format!($($why)*));
    };
}

/// All that is told as sound is so.
fn told(wal: &Wal, models: &Models, unnamed: bool, fresh: bool, what: &str) -> Result<u64, String> {
    let mut sound = 0;
    for id in IDS {
        let (replica, model) = (wal.replica(id), models.get(&id));
        if !replica.exists() {
            must!(model.is_none() || unnamed, "{what}, replica {id} is gone");
            continue;
        }
        let damage = replica.damage();
        let whole = damage.is_empty();
        let suspect = damage.iter().any(|d| d.lost == Lost::State);
        must!(model.is_some() || suspect, "{what}, replica {id} was removed: {damage:?}");
        let never = Model::empty();
        let stood = model.unwrap_or(&never);
        for key in KEYS {
            if let Ok(value) = replica.get(&[key]) {
                sound += 1;
                must!(
                    value.as_deref() == stood.keys.get(&key).map(|v| &v[..]),
                    "{what}, replica {id}, key {key}, {damage:?}: {:?} {:?}",
                    value.map(|v| (v.len(), v.first().copied())),
                    stood.keys.get(&key).map(|v| (v.len(), v.first().copied()))
                );
            }
        }
        if let Ok(applied) = replica.durable_applied() {
            must_eq!(applied, stood.applied, "{what}, replica {id}");
        }
        let (first, last) = replica.bounds();
        must!(
            !whole || (first, last) == (stood.first, stood.last),
            "{what}, replica {id}: {first} to {last}, {:?}",
            (stood.first, stood.last)
        );
        if !suspect && fresh && !unnamed {
            must_eq!((first, last), (stood.first, stood.last), "{what}, replica {id} {damage:?}");
        }
        for index in first..=last {
            let is = stood.entries.get(&index);
            if let Ok(entry) = replica.entry(index) {
                sound += 1;
                let told = Some((entry.term, &entry.data[..]));
                must!(
                    told == is.map(|(t, d)| (*t, &d[..])),
                    "{what}, replica {id}, entry {index} of term {}, {damage:?}, stood {:?}",
                    entry.term,
                    is.map(|e| e.0)
                );
            }
            if let Ok(term) = replica.term(index) {
                must_eq!(Some(term), is.map(|e| e.0), "{what}, replica {id}, term of {index}, {damage:?}");
            }
        }
        let all = replica.entries(first..last + 1, usize::MAX);
        if let Ok(all) = all {
            for entry in all {
                let is = stood.entries.get(&entry.index);
                must!(
                    Some((entry.term, &entry.data[..])) == is.map(|(t, d)| (*t, &d[..])),
                    "{what}, {id}, {}",
                    entry.index
                );
            }
        }
        if let Ok(term) = replica.term(first - 1)
            && first == stood.first
            && first > 1
            && !suspect
        {
            if let Some(was) = stood.prev_term {
                must_eq!(term, was, "{what}, replica {id}, before the first {damage:?}");
            } else {
                return Err(format!("{what}, replica {id}: the term before the first is known as {term}: {damage:?}"));
            }
        }
    }
    Ok(sound)
}

fn check(wal: &Wal, models: &Models, unnamed: bool, fresh: bool, what: &str) -> u64 {
    told(wal, models, unnamed, fresh, what).unwrap_or_else(|why| panic!("{why}"))
}

/// Checks that the log stands as one of these, the newest last. Returns which.
fn stands(wal: &Wal, may: &[Models], unnamed: bool, what: &str, seen: &mut Seen) -> usize {
    let mut why = String::new();
    for (at, models) in may.iter().enumerate().rev() {
        match told(wal, models, unnamed, true, what) {
            Ok(sound) => {
                seen.sound += sound;
                return at;
            }
            Err(other) => why += &format!("\n{at}: {other}"),
        }
    }
    panic!("not as one of {}:{why}", may.len());
}

/// What was lost is told: the models go on from what the log says.
fn reconcile(wal: &Wal, models: &mut Models) {
    for id in IDS {
        let replica = wal.replica(id);
        if !replica.exists() {
            models.remove(&id);
            continue;
        }
        let (first, last) = replica.bounds();
        let m = models.entry(id).or_insert_with(Model::empty);
        m.held = None;
        if (first, last) != (m.first, m.last) {
            m.prev_term = None;
            if first > 1
                && let Ok(term) = replica.term(first - 1)
            {
                // Nobody knows better here.
                m.prev_term = Some(term);
            }
            (m.first, m.last) = (first, last);
            m.entries = m.entries.split_off(&first);
            if let Some(next) = last.checked_add(1) {
                m.entries.split_off(&next);
            }
        } else if m.prev_term.is_none()
            && let Ok(term) = replica.term(first - 1)
        {
            m.prev_term = Some(term);
        }
    }
}

/// Rot while the log is in use: in a frame, or in one superblock while the other is whole.
fn rot_in_use(rng: &mut StdRng, disk: &SimDisk) {
    if rng.random_bool(0.2) {
        let image = disk.kept_image();
        let is_whole = |&at: &u64| Superblock::decode(&image[at as usize..][..SUPERBLOCK_BYTES], disk.len()).is_ok();
        if SUPERBLOCK_OFFSETS.iter().all(is_whole) {
            disk.flip_bit(SUPERBLOCK_OFFSETS[rng.random_range(0..2)] + rng.random_range(0..100), 2);
        }
        return;
    }
    let all = frames(disk);
    if all.is_empty() {
        return;
    }
    let f = &all[rng.random_range(0..all.len())];
    match rng.random_range(0..3) {
        0 => disk.flip_bit(f.offset + rng.random_range(0..120), 1),
        1 if f.table_len > 0 => disk.flip_bit(f.table + rng.random_range(0..f.table_len), 2),
        _ => disk.flip_bit(rng.random_range(f.offset..f.end), 3),
    }
}

/// Hurts a log that is not in use: not the last frames, whose rot is a torn end. `old`: the disk as it was some time before.
fn hurt(rng: &mut StdRng, disk: &SimDisk, old: &[u8], what: &mut Vec<String>) {
    let all = frames(disk);
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { return };
    let Some(safe) = all.len().checked_sub(3).filter(|&n| n > 3) else { return };
    let protected: Vec<(u64, u64)> = all[safe..].iter().map(|f| (f.offset, f.end)).collect();
    let free = |from: u64, to: u64| protected.iter().all(|&(a, b)| to <= a || b <= from);
    let len = disk.len();
    let mut one_superblock = false;
    for _ in 0..rng.random_range(1..4) {
        match rng.random_range(0..9) {
            0 | 1 => {
                let f = &all[rng.random_range(0..safe)];
                disk.poke(f.offset, &[0xee; 4096]);
                what.push(format!("frame {} gone", f.lsn));
            }
            2 => {
                let f = &all[rng.random_range(0..safe)];
                if f.table_len > 0 {
                    disk.flip_bit(f.table + rng.random_range(0..f.table_len), 2);
                    what.push(format!("table {}", f.lsn));
                }
            }
            3 => {
                let f = &all[rng.random_range(0..safe)];
                disk.flip_bit(rng.random_range(f.offset..f.end), 2);
                what.push(format!("bit in frame {}", f.lsn));
            }
            4 => {
                for _ in 0..20 {
                    let at = rng.random_range(POOL_OFFSET..len);
                    if free(at, at + 1) {
                        disk.flip_bit(at, 4);
                    }
                }
                what.push("bits".into());
            }
            5 => {
                // A write that was lost.
                let f = &all[rng.random_range(0..safe)];
                if let Some(bytes) = old.get(f.offset as usize..f.end as usize) {
                    disk.poke(f.offset, bytes);
                    what.push(format!("frame {} lost", f.lsn));
                }
            }
            6 => {
                let at = rng.random_range(POOL_OFFSET / 4096..len / 4096) * 4096;
                let n = rng.random_range(1..5) * 4096;
                if free(at, at + n)
                    && at + n <= len
                    && !sb.journal_slabs.iter().any(|&s| (sb.slab_offset(s)..sb.slab_offset(s + 1)).contains(&at))
                    && let Some(bytes) = old.get(at as usize..(at + n) as usize)
                {
                    disk.poke(at, bytes);
                    what.push(format!("blocks at {at} stale"));
                }
            }
            7 if !one_superblock => {
                one_superblock = true;
                let at = SUPERBLOCK_OFFSETS[rng.random_range(0..2)];
                if rng.random_bool(0.5) {
                    disk.flip_bit(at + rng.random_range(0..100), 2);
                    what.push(format!("superblock {at}"));
                } else {
                    disk.poke(at, &old[at as usize..][..SUPERBLOCK_BYTES]);
                    what.push(format!("superblock {at} stale"));
                }
            }
            8 => {
                if let Some(extent) = sb.snapshot.as_ref().and_then(|s| s.extents.first()) {
                    disk.flip_bit(extent.offset() + rng.random_range(0..extent.bytes()), 2);
                    what.push("snapshot".into());
                }
            }
            _ => {}
        }
    }
}

/// The same log in a larger file; perhaps the power went meanwhile.
fn grown(rng: &mut StdRng, disk: &SimDisk) -> Option<SimDisk> {
    let Ok(Found::Log(sb)) = read_superblock(disk, true) else { return None };
    let to = disk.len() + rng.random_range(1..20) * (64 << 10);
    let mut image = disk.kept_image();
    image.resize(to as usize, 0x5a);
    let disk = SimDisk::from_image(image);
    let Ok(Found::Log(_)) = read_superblock(&disk, false) else { return None };
    let new = crate::grow::enlarged(&sb, to).ok()?;
    if rng.random_bool(0.5) {
        disk.fail_at(disk.events() + rng.random_range(0..4), Fault::Cut);
    }
    let _ = crate::grow::enlarge(&disk, &sb, &new, &mut |_| ());
    Some(disk.crash_seeded(rng.random()))
}

/// How much was tried.
#[derive(Default, Debug)]
struct Seen {
    rounds: u64,
    refused: u64,
    damaged: u64,
    sound: u64,
    salvaged: u64,
    snapshots: u64,
    healed: u64,
    given_up: u64,
    grown: u64,
    cut_at_work: u64,
    saved: u64,
}

fn life(seed: u64, seen: &mut Seen) {
    let mut rng = StdRng::seed_from_u64(seed);
    let placement = [Placement::Auto, Placement::Journal, Placement::Chain][rng.random_range(0..3)];
    let carry = [1, 50, 100][rng.random_range(0..3)];
    let options = || -> Options {
        Wal::options()
            .segment_size(64 << 10)
            .chunk_size(4096)
            .direct_threshold(8 << 10)
            .placement(placement)
            .carry_fraction(carry)
            .recent_bytes(1 << 20)
            .background(false)
    };
    let mut disk = Arc::new(SimDisk::new([2_u64 << 20, 4 << 20, 6 << 20][rng.random_range(0..3)]));
    let mut wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("formatted");
    let mut models = Models::new();
    let (mut salt, mut is_hurt) = (0, false);
    for round in 0..rng.random_range(2..7) {
        seen.rounds += 1;
        let what = format!("seed {seed}, round {round}");
        let steps = rng.random_range(10..90);
        let when = rng.random_range(0..steps);
        let mut old = disk.kept_image();
        for step in 0..steps {
            salt += 1;
            if step == when {
                old = disk.kept_image();
            }
            if round > 0 && rng.random_bool(0.04) {
                is_hurt = true;
                rot_in_use(&mut rng, &disk);
                continue;
            }
            if rng.random_bool(0.03) {
                let at = rng.random_range(POOL_OFFSET / 4096..disk.len() / 4096) * 4096;
                disk.fail_reads(at..at + 4096 * rng.random_range(1..20), EIO);
            }
            if rng.random_bool(0.05) {
                disk.heal_reads();
            }
            operation(&mut rng, &disk, &wal, &mut models, salt, &what);
        }
        disk.heal_reads();
        seen.sound += check(&wal, &models, false, false, &format!("{what}, in use"));
        wal.sync().expect("durable");
        let audit = wal.verify(|_| ()).expect("verified");
        assert!(audit.accounting.is_empty(), "{what}: {audit:?}");
        assert!(is_hurt || audit.is_clean(), "{what}: {audit:?}");
        if rng.random_bool(0.3) {
            let journal = match wal.scrub(u64::MAX, |_| ControlFlow::Continue(())) {
                Ok(journal) => journal,
                Err(Error::Full(_)) => Default::default(),
                Err(error) => panic!("{what}: {error:?}"),
            };
            if journal.rotten_frames > 0 && journal.healed {
                seen.healed += 1;
                let again = wal.scrub(u64::MAX, |_| ControlFlow::Continue(())).expect("scrubbed");
                assert_eq!(again.rotten_frames, 0, "{what}");
            }
        }
        for i in 0..3 {
            may_fail(wal.commit(Batch::new().put(99, b"key", &[i])), &disk, &what);
        }
        let mut cut = false;
        // In the midst of anything: then the log stands as behind some operation since the last that was durable.
        let mut may = vec![models.clone()];
        let at_work = rng.random_bool(0.4);
        if at_work {
            disk.fail_at(disk.events() + rng.random_range(0..60), Fault::Cut);
            for _ in 0..rng.random_range(1..40) {
                salt += 1;
                match operation(&mut rng, &disk, &wal, &mut models, salt, &what) {
                    Done::Nothing => {}
                    Done::Durable => may = vec![models.clone()],
                    Done::Submitted => may.push(models.clone()),
                    Done::Doubtful(models) => may.push(models),
                }
                if disk.is_cut() {
                    break;
                }
            }
            seen.cut_at_work += u64::from(disk.is_cut());
            cut = true;
        }
        match rng.random_range(0..10) {
            _ if cut => {}
            0..3 => wal.close().expect("closed"),
            3..7 => {
                // In the midst of cleaning, of a close, or of a scrub.
                disk.fail_at(disk.events() + rng.random_range(0..25), Fault::Cut);
                match rng.random_range(0..5) {
                    0..3 => drop(wal.checkpoint()),
                    3 => drop(wal.scrub(u64::MAX, |_| ControlFlow::Continue(()))),
                    _ => drop(wal.close()),
                }
                cut = true;
            }
            _ => {}
        }
        drop(wal);
        let before = if cut { disk.crash_seeded(rng.random()) } else { disk.restart() };
        assert!(read_superblock(&before, true).is_ok(), "{what}: neither superblock is whole");
        let mut medium = before.restart();
        let mut what_hurt = Vec::new();
        // What rots at the end of a log that was cut at work looks torn.
        if !at_work && rng.random_bool(0.75) {
            is_hurt = true;
            hurt(&mut rng, &medium, &old, &mut what_hurt);
        }
        if rng.random_bool(0.15)
            && let Some(larger) = grown(&mut rng, &medium)
        {
            seen.grown += 1;
            medium = larger;
        }
        for _ in 0..rng.random_range(0..3) {
            let d = Arc::new(medium.restart());
            d.fail_at(d.events() + rng.random_range(0..7), Fault::Cut);
            drop(options().open_disk(Arc::clone(&d) as Arc<dyn Disk>));
            medium = d.crash_seeded(rng.random());
        }
        let what = format!("{what}, {what_hurt:?}");
        let mut saved = None;
        if let Ok(salvage) = super::rig::open(&medium, options().recovery_mode(RecoveryMode::Salvage)) {
            let unnamed = salvage.stats().unnamed_losses > 0;
            let at = stands(&salvage, &may, unnamed, &format!("{what}, salvage"), seen);
            if rng.random_bool(0.4) {
                let to = Arc::new(SimDisk::new(16 << 20));
                let copy = options().open_disk(Arc::clone(&to) as Arc<dyn Disk>).expect("formatted");
                salvage.salvage_into(&copy, |_| ()).expect("room");
                seen.sound += check(&copy, &may[at], true, true, &format!("{what}, copy"));
                seen.salvaged += 1;
                drop(copy);
                saved = Some((to.crash_lost_all(), at));
            }
        }
        disk = Arc::new(medium.restart());
        wal = match options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>) {
            Ok(wal) => wal,
            Err(Error::Corrupt { .. }) => {
                assert!(is_hurt, "{what}");
                seen.refused += 1;
                if let Some((copy, at)) = saved {
                    // The log goes on with the saved copy: what that lacks is told as damage, or unnamed.
                    seen.saved += 1;
                    disk = Arc::new(copy);
                    wal = options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>).expect("a copy");
                    models = may.swap_remove(at);
                    seen.sound += check(&wal, &models, true, true, &format!("{what}, saved"));
                    reconcile(&wal, &mut models);
                    continue;
                }
                disk = Arc::new(before.restart());
                match options().open_disk(Arc::clone(&disk) as Arc<dyn Disk>) {
                    Ok(wal) => wal,
                    Err(Error::Corrupt { .. }) => {
                        seen.given_up += 1;
                        return;
                    }
                    Err(error) => panic!("{what}: {error:?}"),
                }
            }
            Err(error) => panic!("{what}: {error:?}"),
        };
        seen.snapshots += wal.stats().opened_by_snapshot;
        seen.damaged += u64::from(!wal.damage().is_empty());
        assert!(is_hurt || wal.damage().is_empty(), "{what}");
        let at = stands(&wal, &may, false, &format!("{what}, opened"), seen);
        models = may.swap_remove(at);
        let audit = wal.verify(|_| ()).expect("verified");
        assert!(audit.accounting.is_empty(), "{what}: {audit:?}");
        reconcile(&wal, &mut models);
    }
    // All that is held is given back.
    let mut batch = Batch::new();
    for id in wal.replicas() {
        batch.remove(id);
    }
    if !batch.is_empty() {
        wal.commit(&mut batch).expect("removal");
    }
    for _ in 0..4 {
        wal.commit(Batch::new().put(99, b"key", b"value")).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    }
    let stats = wal.stats();
    assert_eq!((stats.used_chunks, stats.pinned_chunks), (0, 0), "seed {seed}: {stats:?}");
}

/// More of them: `STRANDLOG_SEEDS`; others: `STRANDLOG_SEED`.
#[test]
fn in_a_life_of_rot_cuts_growth_and_salvage_all_that_is_told_is_true() {
    let from = std::env::var("STRANDLOG_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    let count = std::env::var("STRANDLOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut seen = Seen::default();
    for seed in from..from + count {
        life(seed, &mut seen);
    }
    let Seen { rounds, refused, damaged, sound, salvaged, snapshots, healed, given_up, grown, cut_at_work, saved } =
        seen;
    println!(
        "tally rounds={rounds} refused={refused} damaged={damaged} sound={sound} salvaged={salvaged} snapshots={snapshots} healed={healed} \
         given_up={given_up} grown={grown} cut_at_work={cut_at_work} saved={saved}"
    );
    assert!(
        count < 60 || [damaged, sound, salvaged, snapshots, healed, grown, cut_at_work].iter().all(|&n| n > 0),
        "too little is tried"
    );
}
