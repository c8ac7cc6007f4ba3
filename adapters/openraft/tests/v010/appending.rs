//! `append` does not wait: what it wrote can be read while the disk still writes it, and is acknowledged in order afterwards.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use futures_util::{FutureExt, StreamExt};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use strandlog::disk::sim::SimDisk;
use strandlog::disk::{Disk, DiskInfo, Map};
use strandlog::{Options, Wal};

use crate::support::{
    Entry, Store, Types, append, append_later, disk, entry, held, indexes, log_id, open, options, store, told_already,
    vote,
};

/// A disk whose writes wait until they are let through.
#[derive(Debug)]
struct Gate {
    disk: Arc<SimDisk>,
    shut: Mutex<bool>,
    opened: Condvar,
    waited: AtomicBool,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            self.waited.store(true, Ordering::SeqCst);
            shut = self.opened.wait(shut).unwrap();
        }
    }
}

impl Disk for Gate {
    fn len(&self) -> u64 {
        Disk::len(&*self.disk)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.pass();
        self.disk.write_at(offset, buf)
    }
    fn write_durable_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.pass();
        self.disk.write_durable_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.pass();
        self.disk.flush()
    }
    fn map(&self) -> Option<Arc<Map>> {
        self.disk.map()
    }
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }
    fn release(&self) {
        self.disk.release();
    }
}

/// Opens the gate, so that a failing test does not wait for the log to be closed.
struct Keeper(Arc<Gate>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Deref for Keeper {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.0
    }
}

/// The keeper is declared second, so that it is dropped first.
fn gated() -> (Arc<Wal>, Keeper) {
    gated_with(options())
}

fn gated_with(options: Options) -> (Arc<Wal>, Keeper) {
    let gate = Arc::new(Gate {
        disk: disk(),
        shut: Mutex::new(false),
        opened: Condvar::new(),
        waited: AtomicBool::new(false),
    });
    let wal = Arc::new(options.open_disk(Arc::clone(&gate) as Arc<dyn Disk>).unwrap());
    (wal, Keeper(gate))
}

#[tokio::test]
async fn appends_return_and_can_be_read_while_the_disk_writes_and_are_told_in_order_afterwards() {
    let (wal, gate) = gated();
    let mut groups: Vec<Store> = (0..20).map(|group| store(&wal, group)).collect();
    gate.set(true);
    let mut told = Vec::new();
    for index in 0..30 {
        for group in &mut groups {
            told.push(append_later(group, entry(1, index, "soon")).await);
        }
    }
    for group in &mut groups {
        assert_eq!(indexes(&held(group).await.entries), (0..30).collect::<Vec<_>>());
        // These have no sync of their own, and wait for none.
        group.save_committed(Some(log_id(1, 20))).await.unwrap();
        group.purge(log_id(1, 4)).await.unwrap();
        assert_eq!(indexes(&group.reader().try_get_log_entries(..8).await.unwrap()), [5, 6, 7]);
    }
    while !gate.waited.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    assert!(told.iter_mut().all(|told| told_already(told).is_none()), "acknowledged, and not yet written");

    gate.set(false);
    while let Some(last) = told.pop() {
        last.await.unwrap().unwrap();
        // One log, one order: all earlier callbacks have run, too.
        for mut before in std::mem::take(&mut told) {
            told_already(&mut before).expect("told before the later one").unwrap();
        }
    }
}

/// One thread for everything: if an append blocked it, the gate would never open.
#[tokio::test]
async fn an_append_that_finds_the_queue_full_waits_and_its_thread_goes_on() {
    let (wal, gate) = gated_with(options().queue_bytes(64 << 10));
    let mut group = store(&wal, 1);
    gate.set(true);
    let text = "a long line ".repeat(400);
    let mut told = Vec::new();
    loop {
        let index = told.len() as u64;
        assert!(index < 50, "the queue is never full");
        let (signal, later) = Types::oneshot();
        told.push(later);
        let mut appending = Box::pin(group.append([entry(1, index, &text)], IOFlushed::signal(signal)));
        if let Some(outcome) = (&mut appending).now_or_never() {
            outcome.unwrap();
            continue;
        }
        assert_eq!(wal.replica(1).last_index(), index, "what waits is not in the log");
        gate.set(false);
        appending.await.unwrap();
        break;
    }
    assert!(told.len() > 5, "{} appends in 64 KiB", told.len());
    let last = told.len() as u64 - 1;
    told.pop().unwrap().await.unwrap().unwrap();
    for mut before in told {
        told_already(&mut before).expect("told before the later one").unwrap();
    }
    assert_eq!(held(&mut group).await.last, Some(log_id(1, last)));
}

#[tokio::test]
async fn a_vote_waits_for_the_disk_and_comes_behind_what_was_appended_before() {
    let (wal, gate) = gated();
    let mut group = store(&wal, 1);
    gate.set(true);
    let mut told = append_later(&mut group, entry(1, 0, "first")).await;
    let early = vote(5, 3);
    {
        let mut saving = Box::pin(group.save_vote(&early));
        assert!((&mut saving).now_or_never().is_none(), "a vote that is not durable was returned");
        gate.set(false);
        saving.await.unwrap();
    }
    told_already(&mut told).expect("told before the vote").unwrap();
    let found = Arc::new(gate.disk.crash_lost_all());
    let found = held(&mut store(&open(&found), 1)).await;
    assert_eq!((found.vote, found.last), (Some(early), Some(log_id(1, 0))));
}

#[tokio::test]
async fn an_append_of_nothing_is_told_after_what_was_before_it() {
    let (wal, gate) = gated();
    let mut group = store(&wal, 1);
    gate.set(true);
    let mut first = append_later(&mut group, entry(1, 0, "first")).await;
    let (told, mut nothing) = Types::oneshot();
    group.append([], IOFlushed::signal(told)).await.unwrap();
    assert!(told_already(&mut nothing).is_none());
    gate.set(false);
    nothing.await.unwrap().unwrap();
    told_already(&mut first).expect("told").unwrap();
}

/// A quorum may have it without this node. The state machine must not be ahead of the log that a crash leaves.
#[tokio::test]
async fn what_is_committed_is_handed_to_a_state_machine_when_it_is_durable_here() {
    let (wal, gate) = gated();
    let mut group = store(&wal, 1);
    append(&mut group, 1, 0..5).await;
    gate.set(true);
    let _told = [append_later(&mut group, entry(1, 5, "a")).await, append_later(&mut group, entry(1, 6, "b")).await];
    let (mut durable, mut reader, mut beyond) = (group.reader(), group.reader(), group.reader());
    group.save_committed(Some(log_id(1, 5))).await.unwrap();
    let first = |entry: Option<io::Result<Entry>>| entry.unwrap().unwrap().log_id.index;

    let mut durable = Box::pin(durable.entries_stream(2..5).await);
    assert_eq!(first(durable.next().now_or_never().expect("it waits for what it does not read")), 2);
    // For entries that openraft sends to others that is not required.
    let mut beyond = Box::pin(beyond.entries_stream(2..7).await);
    for index in 2..7 {
        assert_eq!(first(beyond.next().now_or_never().expect("it waits for the disk")), index);
    }
    let mut applies = Box::pin(reader.entries_stream(2..6).await);
    for index in 2..5 {
        assert_eq!(first(applies.next().now_or_never().expect("it waits before what is durable")), index);
    }
    assert!(applies.next().now_or_never().is_none(), "handed out, and not durable");
    gate.set(false);
    assert_eq!(first(applies.next().await), 5);
    assert!(applies.next().await.is_none());
    let found = Arc::new(gate.disk.crash_lost_all());
    assert!(held(&mut store(&open(&found), 1)).await.last >= Some(log_id(1, 5)));

    // After an overwrite it waits for the new entry.
    append(&mut group, 1, 7..9).await;
    group.truncate_after(Some(log_id(1, 6))).await.unwrap();
    gate.set(true);
    let _told = append_later(&mut group, entry(2, 7, "c")).await;
    group.save_committed(Some(log_id(2, 7))).await.unwrap();
    let mut reader = group.reader();
    let mut applies = Box::pin(reader.entries_stream(7..8).await);
    assert!(applies.next().now_or_never().is_none(), "handed out, and not durable");
    gate.set(false);
    assert_eq!(first(applies.next().await), 7);
}
