//! A disk in memory that knows what a power cut may do to it.
//!
//! The crash tests of the log run on it: write and sync as on a real disk, then ask for the disk as it
//! would be found after the power was cut here, in one of the ways the fault model allows:
//!
//! * what a sync covered survives byte for byte, and **only** that: a durable write covers its own
//!   range, a flush covers every write that had completed;
//! * every other sector of 512 bytes holds, independently of all others, what was durable there, any
//!   version written since, a mixture torn at any byte, or garbage.
//!
//! Writes that are begun together ([`Disk::write_many`]) are in flight together: when the power goes at one of them, those behind it
//! may survive without it.
//!
//! Every write and every sync is a numbered *event*, so that a test can run something once to learn
//! how many there are, and then once more for each of them with a fault planned there.
//!
//! It is compiled always, so that tests, fuzzers and benchmarks of other crates can use it, but it is
//! no part of the promise of the crate: its interface may change at any time.

use super::{Disk, DiskInfo, Map, SyncMethod, bounds::check_read};
use parking_lot::Mutex;
use std::{fmt, io, ops::Range, sync::Arc};

mod crash;
mod fault;
mod medium;
mod pages;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    crash::Choice,
    fault::{EIO, ENOSPC, EventHook, EventInfo, EventKind, Fault, ReadHook},
    medium::SECTOR,
};
use self::{medium::Medium, pages::Pages, state::State};

/// As many writes as a real disk does at once.
const AT_ONCE: usize = 8;

/// A simulated disk.
///
/// To let a log and a test use the *same* disk, share it in an `Arc`. A clone is a cheap independent
/// copy: contents, versions in doubt, planned faults and all.
pub struct SimDisk {
    // One lock for everything: events have one order, and a copy is of one moment.
    state: Mutex<State>,
}

impl SimDisk {
    /// A disk of `len` zeros, all of them durable.
    pub fn new(len: u64) -> Self {
        Self::from_pages(Pages::new(len))
    }

    /// A disk that holds exactly these bytes, all of them durable.
    pub fn from_image(image: Vec<u8>) -> Self {
        let mut pages = Pages::new(image.len() as u64);
        pages.write(0, &image);
        Self::from_pages(pages)
    }

    fn from_pages(pages: Pages) -> Self {
        Self::from_medium(Medium::new(pages))
    }

    fn from_medium(medium: Medium) -> Self {
        Self { state: Mutex::new(State::new(medium)) }
    }

    /// The disk as the next process finds it when only the process died and the power stayed: every
    /// completed write can be read, but what was not synced is still in doubt.
    ///
    /// What a failed sync left in doubt is read if it was visible, as from a device that took it after all. The other extreme, a device
    /// that took none of it, is [`SimDisk::crash_lost_all`].
    pub fn restart(&self) -> SimDisk {
        self.with_medium(|medium| {
            let mut medium = medium.clone();
            medium.read_anew();
            Self::from_medium(medium)
        })
    }

    /// Makes the event with this number go wrong.
    pub fn fail_at(&self, event: u64, fault: Fault) {
        self.state.lock().plan.fail_at(event, fault);
    }

    /// Makes the `nth` sync go wrong, counting durable writes and flushes from 0.
    pub fn fail_sync_at(&self, nth: u64, fault: Fault) {
        self.state.lock().plan.fail_sync_at(nth, fault);
    }

    /// Lets a function decide, for each event before it happens, whether it goes wrong.
    pub fn on_event(&self, hook: impl Fn(&EventInfo) -> Option<Fault> + Send + Sync + 'static) {
        self.state.lock().plan.set_hook(Arc::new(hook));
    }

    /// Lets the next `writes` writes that come after a cut reach the medium in part, though they fail
    /// like everything else: they were in flight when the power went.
    ///
    /// Events are atomic here, so this is how a later write survives while the one that was cut does
    /// not. It is only fair to a log that has that many writes in flight at once.
    pub fn in_flight_at_cut(&self, writes: u32) {
        self.state.lock().in_flight_at_cut = writes;
    }

    /// A planted bug: the `nth` sync (counted as in [`SimDisk::fail_sync_at`]) does nothing and says it did.
    pub fn ignore_sync(&self, nth: u64) {
        self.state.lock().plan.ignore_sync(nth);
    }

    /// A planted bug: no sync does anything. Every test of durability must fail on such a disk.
    pub fn ignore_all_syncs(&self) {
        self.state.lock().plan.ignore_all_syncs();
    }

    /// Makes every read that touches the range fail, until [`SimDisk::heal_reads`].
    pub fn fail_reads(&self, range: Range<u64>, errno: i32) {
        self.state.lock().failing_reads.push((range, errno));
    }

    /// Shows every read to a function, which may change what was read (a bit flip, a stale sector) or fail it.
    pub fn on_read(&self, hook: impl Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync + 'static) {
        self.state.lock().read_hook = Some(Arc::new(hook));
    }

    /// Lets all reads succeed again.
    pub fn heal_reads(&self) {
        let mut state = self.state.lock();
        state.failing_reads.clear();
        state.read_hook = None;
    }

    /// How many events there have been: the number of the next.
    pub fn events(&self) -> u64 {
        self.state.lock().log.len() as u64
    }

    /// How many of the events were syncs.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// How many bytes have been read.
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// Whether the power is off.
    pub fn is_cut(&self) -> bool {
        self.state.lock().cut
    }

    /// Every event so far.
    pub fn log(&self) -> Vec<EventInfo> {
        self.state.lock().log.clone()
    }

    /// The sectors that no sync has covered since they were written, in order.
    pub fn sectors_in_doubt(&self) -> Vec<u64> {
        self.with_medium(|medium| medium.unsynced().map(|(sector, _)| sector).collect())
    }

    /// All bytes as reads see them; of a disk found after a crash, what the medium kept.
    pub fn kept_image(&self) -> Vec<u8> {
        self.with_medium(|medium| medium.live().to_vec())
    }

    /// All bytes as the last syncs left them.
    pub fn durable_image(&self) -> Vec<u8> {
        self.with_medium(|medium| medium.durable().to_vec())
    }

    /// Damages the medium: these bytes are there now, durable and unasked for.
    ///
    /// # Panics
    /// When the range reaches past the end: a test that damages nothing proves nothing.
    pub fn poke(&self, offset: u64, bytes: &[u8]) {
        self.edit(offset, bytes.len(), |old| old.copy_from_slice(bytes));
    }

    /// Flips one bit (0 to 7) of one byte of the medium.
    ///
    /// # Panics
    /// When the byte is past the end.
    pub fn flip_bit(&self, offset: u64, bit: u32) {
        self.edit(offset, 1, |byte| byte[0] ^= 1 << (bit % 8));
    }

    /// Replaces a sector of the medium with zeros.
    ///
    /// # Panics
    /// When the sector is past the end.
    pub fn zero_sector(&self, sector: u64) {
        self.edit(sector * SECTOR as u64, SECTOR, |bytes| bytes.fill(0));
    }

    /// Swaps two sectors of the medium.
    ///
    /// # Panics
    /// When one of them is past the end.
    pub fn swap_sectors(&self, a: u64, b: u64) {
        let (mut first, mut second) = ([0; SECTOR], [0; SECTOR]);
        self.edit(a * SECTOR as u64, SECTOR, |bytes| first.copy_from_slice(bytes));
        self.edit(b * SECTOR as u64, SECTOR, |bytes| second.copy_from_slice(bytes));
        self.poke(a * SECTOR as u64, &second);
        self.poke(b * SECTOR as u64, &first);
    }

    fn edit(&self, offset: u64, len: usize, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state.lock();
        assert!(check_read(state.len(), offset, len).is_ok(), "{offset}+{len} is past the end");
        let mut bytes = vec![0; len];
        state.medium.live().read(offset, &mut bytes);
        change(&mut bytes);
        state.medium.damage(offset, &bytes);
    }

    fn with_medium<T>(&self, look: impl FnOnce(&Medium) -> T) -> T {
        look(&self.state.lock().medium)
    }
}

impl Clone for SimDisk {
    fn clone(&self) -> Self {
        Self { state: Mutex::new(self.state.lock().clone()) }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimDisk")
            .field("len", &state.len())
            .field("events", &state.log.len())
            .field("cut", &state.cut)
            .field("plan", &state.plan)
            .finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn len(&self) -> u64 {
        self.state.lock().len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.state.lock().read(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.state.lock().write(EventKind::Write, offset, buf)
    }

    fn at_once(&self) -> usize {
        AT_ONCE
    }

    /// All of them are begun, even if the first fails; if the power goes meanwhile, those behind were in flight.
    fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        let (mut outcome, was_cut) = (Ok(()), self.is_cut());
        for &(offset, buf) in writes {
            let done = match &outcome {
                Err(_) if !was_cut => self.state.lock().write_in_flight(offset, buf),
                _ => self.write_at(offset, buf),
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.state.lock().write(EventKind::WriteDurable, offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.state.lock().flush()
    }

    fn map(&self) -> Option<Arc<Map>> {
        None
    }

    fn info(&self) -> DiskInfo {
        DiskInfo::unprobed(SyncMethod::DirectDsync)
    }

    fn release(&self) {
        self.state.lock().released = true;
    }
}
