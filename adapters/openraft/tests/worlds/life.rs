//! A node from a start to its death: its log on a simulated disk, and the files of its state machines, which lose power together with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strandlog::disk::Disk;
use strandlog::disk::sim::{EIO, Fault, SimDisk};
use strandlog::{Batch, Wal};
use tokio::sync::Notify;

use crate::rng::Rng;

/// A file that is replaced as a whole: after a crash, what was written is there only by luck, unless it was synced.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    written: Vec<u8>,
}

/// The replica that fills logs.
const OTHERS: u64 = 1000;

/// A group's file, one of two: the state, or the last snapshot.
pub type Name = (u64, &'static str);

/// What a death leaves.
pub struct Remains {
    disk: Arc<SimDisk>,
    files: BTreeMap<Name, File>,
}

impl Remains {
    pub fn blank() -> Self {
        Self { disk: Arc::new(SimDisk::new(4 << 20)), files: BTreeMap::new() }
    }
}

pub struct Life {
    pub node: u64,
    pub wal: Arc<Wal>,
    disk: Arc<SimDisk>,
    power: Arc<Power>,
    is_full: AtomicBool,
    files: Mutex<BTreeMap<Name, File>>,
    found: Mutex<Option<Remains>>,
}

/// Fails at an event of the disk, or at once.
#[derive(Debug, Default)]
struct Power {
    dead: AtomicBool,
    died: Notify,
    /// The number of events until the power fails; 0: no limit.
    left: AtomicU64,
    /// The number of events until one returns an error, which ends the log; 0: none does.
    left_to_error: AtomicU64,
    erred: AtomicBool,
}

impl Power {
    fn fail(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_waiters();
        self.died.notify_one();
    }
}

impl Life {
    /// Opens the log that was left; `cut`: the power fails at that event, which may be one of the opening's.
    pub fn begin(node: u64, remains: Remains, cut: u64, rng: &mut Rng) -> Result<Arc<Self>, Remains> {
        let Remains { disk, files } = remains;
        let power = Arc::new(Power { left: AtomicU64::new(cut), ..Power::default() });
        let at_event = Arc::clone(&power);
        disk.on_event(move |_| {
            let left = at_event.left.load(Ordering::SeqCst);
            at_event.left.store(left.saturating_sub(1), Ordering::SeqCst);
            if left == 1 {
                at_event.fail();
                return Some(Fault::Cut);
            }
            let left = at_event.left_to_error.load(Ordering::SeqCst);
            at_event.left_to_error.store(left.saturating_sub(1), Ordering::SeqCst);
            (left == 1).then(|| {
                at_event.erred.store(true, Ordering::SeqCst);
                Fault::Error(EIO)
            })
        });
        // Without threads, so that a seed makes the same writes in every run. `flush` does what they would.
        let options = Wal::options().chunk_size(4096).segment_size(64 << 10).background(false);
        match options.open_disk(Arc::clone(&disk) as Arc<dyn Disk>) {
            Ok(wal) => Ok(Arc::new(Self {
                node,
                is_full: AtomicBool::new(wal.replica(OTHERS).exists()),
                wal: Arc::new(wal),
                disk,
                power,
                files: Mutex::new(files),
                found: Mutex::new(None),
            })),
            Err(error) => {
                assert!(disk.is_cut(), "node {node}: the log does not open: {error}");
                Err(Remains { disk: Arc::new(disk.crash_seeded(rng.next())), files })
            }
        }
    }

    pub fn is_alive(&self) -> bool {
        !self.power.dead.load(Ordering::SeqCst)
    }

    pub async fn death(&self) {
        while self.is_alive() {
            self.power.died.notified().await;
        }
    }

    /// The power fails at the disk's event of this number from now.
    pub fn cut_at(&self, event: u64) {
        self.power.left.store(event, Ordering::SeqCst);
    }

    /// The disk's event of this number from now returns an error: the log ends, and soon the process.
    pub fn fail_at(&self, event: u64) {
        self.power.left_to_error.store(event, Ordering::SeqCst);
    }

    /// The disk returned an error: nothing makes progress any more.
    pub fn has_erred(&self) -> bool {
        self.power.erred.load(Ordering::SeqCst)
    }

    /// Cancels planned failures.
    pub fn spare(&self) {
        self.cut_at(0);
        self.fail_at(0);
    }

    /// Another replica's entries take all the room that there is.
    pub fn fill(&self) {
        self.is_full.store(true, Ordering::SeqCst);
        for size in [30_000, 3000, 300] {
            let bytes = vec![7; size];
            loop {
                let next = self.wal.replica(OTHERS).last_index() + 1;
                if self.wal.commit(Batch::new().append(OTHERS, &[(next, 1, &bytes)])).is_err() {
                    break;
                }
            }
        }
    }

    /// Gives that room back.
    pub fn relieve(&self) {
        // Fails only with the disk.
        drop(self.wal.commit(Batch::new().remove(OTHERS)));
    }

    /// Whether appends may be refused for want of room; until the groups that ended by that were started anew.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::SeqCst)
    }

    pub fn is_well_again(&self) {
        self.is_full.store(false, Ordering::SeqCst);
    }

    /// What the node has of a group is dropped: it was removed from that group.
    pub fn forget(&self, group: u64) {
        self.files.lock().unwrap().retain(|&(of, _), _| of != group);
        drop(self.wal.commit(Batch::new().remove(group)));
    }

    /// The process dies now; the power stays, or goes, too. What its tasks still write goes nowhere.
    pub fn kill(&self, power_stays: bool, rng: &mut Rng) {
        if self.is_alive() {
            let disk = if power_stays { self.disk.restart() } else { self.disk.crash_seeded(rng.next()) };
            let files = self.files_left(|| power_stays, rng);
            *self.found.lock().unwrap() = Some(Remains { disk: Arc::new(disk), files });
            self.power.fail();
        }
    }

    pub fn remains(&self, rng: &mut Rng) -> Remains {
        if let Some(found) = self.found.lock().unwrap().take() {
            return found;
        }
        assert!(!self.is_alive());
        Remains { disk: Arc::new(self.disk.crash_seeded(rng.next())), files: self.files_left(|| false, rng) }
    }

    fn files_left(&self, all: impl Fn() -> bool, rng: &mut Rng) -> BTreeMap<Name, File> {
        let mut files = self.files.lock().unwrap().clone();
        for file in files.values_mut() {
            if !all() && rng.below(2) == 0 {
                file.written = file.durable.clone();
            }
        }
        files
    }

    pub fn read(&self, name: Name) -> Vec<u8> {
        self.files.lock().unwrap().get(&name).map(|file| file.written.clone()).unwrap_or_default()
    }

    pub fn write(&self, name: Name, bytes: Vec<u8>) {
        if self.is_alive() {
            self.files.lock().unwrap().entry(name).or_default().written = bytes;
        }
    }

    pub fn sync(&self, name: Name) {
        if self.is_alive() {
            let mut files = self.files.lock().unwrap();
            let file = files.entry(name).or_default();
            file.durable = file.written.clone();
        }
    }

    /// Writes what appends wait for, and now and then what nothing waits for.
    pub fn flush(&self, seen: &mut BTreeMap<u64, u64>, groups: u64, rng: &mut Rng) {
        let ends: BTreeMap<u64, u64> =
            (1..=groups).map(|group| (group, self.wal.replica(group).last_index())).collect();
        if ends != *seen || rng.below(12) == 0 {
            // Fails only with the power; then nobody is told anything.
            drop(self.wal.sync());
            *seen = ends;
        }
    }
}
