//! Logs on a device with bad sectors.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;
use strandlog::disk::Disk;
use strandlog::disk::sim::{EIO, SimDisk};
use strandlog::{Error, ReadMode, RecoveryMode, Wal};

use crate::life::{BLOCK, make};
use crate::model::{agrees, read};

fn open(disk: &SimDisk, mode: RecoveryMode) -> strandlog::Result<Wal> {
    let options = Wal::options().read_only(true).read_mode(ReadMode::Copied).recovery_mode(mode);
    let copy = disk.restart();
    options.open_disk(Arc::new(copy) as Arc<dyn Disk>)
}

/// Bad sectors anywhere except under both superblocks: what is reported as sound is so, and everything readable is reported and saved.
pub fn a_bad_device(rng: &mut SmallRng) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = make(rng, dir.path());
    let disk = Arc::new(SimDisk::from_image(made.image.clone()));
    let mut what = made.what.clone();
    let blocks = made.image.len() / BLOCK;
    let used: Vec<usize> =
        (16..blocks).filter(|&b| crate::life::block(&made.image, b).iter().any(|&x| x != 0)).collect();
    let mut bad = Vec::new();
    for _ in 0..rng.random_range(1..8) {
        let at = (used[rng.random_range(0..used.len())] * BLOCK + rng.random_range(0..8) * 512) as u64;
        bad.push(at);
        what += &format!(", bad sector at {at}");
    }
    let hurt = |disk: SimDisk| {
        bad.iter().for_each(|&at| disk.fail_reads(at..at + 512, EIO));
        Arc::new(disk)
    };
    let options = |mode| Wal::options().read_only(true).read_mode(ReadMode::Copied).recovery_mode(mode);
    let opened = |mode| options(mode).open_disk(hurt(disk.restart()) as Arc<dyn Disk>);
    let wal = match opened(RecoveryMode::TolerateTornTail) {
        Err(Error::Corrupt { .. } | Error::Io { .. }) => opened(RecoveryMode::Salvage).expect("a salvage opens"),
        wal => wal.expect("refused for something else"),
    };
    let told = read(&wal);
    if made.or.is_none() {
        agrees(&told, &made.stood, &made.history, &what);
    }
    let report = wal.verify(|_| ()).unwrap_or_else(|error| panic!("{what}: verified: {error}"));
    for id in &told.hurt {
        assert!(!report.is_clean(), "{what}: replica {id} is hurt, and the log called sound");
    }
    let entries: usize = told.log.values().map(|r| r.entries.len()).sum();
    assert_eq!(report.entries, entries as u64, "{what}: {report:?}");
    let salvage = opened(RecoveryMode::Salvage).expect("a salvage opens");
    let stats = salvage.stats();
    let copy = Wal::options()
        .capacity(stats.capacity + stats.capacity / 4)
        .segment_size(stats.segment_size as u32)
        .chunk_size(stats.chunk_size as u32)
        .background(false)
        .open_disk(Arc::new(SimDisk::new(stats.capacity + stats.capacity / 4)))
        .expect("formatted");
    let salvaged = salvage.salvage_into(&copy, |_| ()).unwrap_or_else(|error| panic!("{what}: salvaged: {error}"));
    let mut saved = read(&copy);
    saved.unnamed = salvaged.unnamed;
    if made.or.is_none() {
        agrees(&saved, &made.stood, &made.history, &format!("{what}, saved"));
    }
    if told.unnamed == salvaged.unnamed {
        for (id, was) in &told.log {
            assert!(was.entries == saved.log[id].entries, "{what}: replica {id}: what can be read is not saved");
        }
    }
    let _ = open;
}
