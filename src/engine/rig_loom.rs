//! A log for models: the engine itself over a device that only counts.

use std::io;

use loom::thread;
use parking_lot::Mutex as Plain;

use super::{Engine, Parts};
use crate::disk::{Disk, DiskInfo, Map, SyncMethod};
use crate::error::Error;
use crate::format::POOL_OFFSET;
use crate::index::Registry;
use crate::journal::{Resume, SegmentMap, Segments};
use crate::options::Options;
use crate::space::{Accounts, Pool};
use crate::stats::Counters;
use crate::sync::{Arc, AtomicU64, Ordering};

const SEGMENT: u32 = 64 << 10;
const CAPACITY: u64 = 8 * SEGMENT as u64 + POOL_OFFSET;
/// Where the first segment of the log begins: its LSN, and its place in the file.
const FIRST_LSN: u64 = SEGMENT as u64;

/// A device that forgets everything but what was written where.
#[derive(Debug, Default)]
pub(crate) struct Device {
    /// Offsets and lengths. Not loom's: it belongs to the model, not to what is modelled.
    pub written: Plain<std::collections::BTreeMap<u64, u64>>,
    /// loom's: other threads may run while a write is under way.
    pub busy: AtomicU64,
    /// The write at this offset fails.
    pub bad: Plain<Option<u64>>,
}

impl Device {
    /// The LSN up to which the journal was written without a hole, as long as that stays in its first segment.
    pub fn durable(&self) -> u64 {
        let mut end = POOL_OFFSET;
        while let Some(len) = self.written.lock().get(&end) {
            end += len;
        }
        end - POOL_OFFSET + FIRST_LSN
    }
}

impl Disk for Device {
    fn len(&self) -> u64 {
        CAPACITY
    }
    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        if *self.bad.lock() == Some(offset) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let twice = self.written.lock().insert(offset, buf.len() as u64);
        assert!(twice.is_none(), "a frame was written over another");
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> Option<Arc<Map>> {
        None
    }
    fn info(&self) -> DiskInfo {
        DiskInfo::unprobed(SyncMethod::DirectDsync)
    }
    fn release(&self) {}
}

/// A log as recovery leaves an empty one, and the device under it.
pub(crate) struct Log {
    pub engine: Engine,
    pub device: Arc<Device>,
}

impl Log {
    pub fn new(queue_bytes: usize) -> Arc<Self> {
        let device = Arc::new(Device::default());
        let options = Options::default().capacity(CAPACITY).chunk_size(SEGMENT).segment_size(SEGMENT);
        let superblock = options.geometry([1; 16], CAPACITY).unwrap();
        let free = superblock.journal_slabs.iter().copied().collect();
        let segments = Segments { next_seq: 1, free, ..Segments::default() };
        let slabs = superblock.journal_slabs.len() as u64;
        let accounts = Accounts::new(SEGMENT, u64::from(SEGMENT), 12, (slabs, slabs));
        let resume = Resume {
            segments,
            accounts,
            replicas: 0,
            prev: None,
            prev_participants: Vec::new(),
            session: 1 << 32,
            cut: 0,
            in_place: None,
        };
        let pool = Pool::new(superblock.chunk_count(), SEGMENT, SEGMENT, &superblock.journal_slabs);
        let engine = Engine::new(Parts {
            disk: Arc::clone(&device) as Arc<dyn Disk>,
            mapped: false,
            superblock,
            run: crate::options::RunOptions { queue_bytes, ..options.run },
            registry: Registry::new(),
            pool,
            resume,
            segment_map: SegmentMap::default(),
            durable: 0,
            counters: Counters::default(),
            read_only: false,
            used_up: None,
        });
        // The first frame flies alone. It is on the disk already, for all that follows.
        engine.seq.lock().in_flight.completed();
        Arc::new(Self { engine, device })
    }

    pub fn stop(&self) {
        self.engine.stop(&Error::Closed, None);
    }

    pub fn spawn<T: 'static>(self: &Arc<Self>, body: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let log = Arc::clone(self);
        thread::spawn(move || body(&log))
    }
}

/// Every interleaving with at most `preemptions` switches that no thread asked for.
pub(crate) fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(preemptions);
    model.max_branches = 20_000;
    model.check(body);
}
