//! From "written" to "durable": the asynchronous half of the Ready flow.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use strandlog::{Lsn, Wal};

use crate::outgoing::drop_misplaced;
use crate::part::{Part, Taken};
use crate::round::Round;
use crate::waiting::{Met, Persisted, Waiting, Written};
use crate::{Error, Result};

/// Submits [`Round`]s and tells which of them have become durable. One for each poller thread.
///
/// ```text
///  poller:  persist .. persist, submit: send ---> step on ---> poll: on_persist_ready, send the rest
///                                 |                              ^
///  log:                           `--> one write, one sync ------' watermark, wake()
/// ```
pub struct PersistQueue {
    wal: Arc<Wal>,
    waiting: Waiting,
    met: Arc<Met>,
    signal: Arc<Signal>,
    last: Option<Lsn>,
}

/// What the log's writer thread tells the poller.
struct Signal {
    durable: AtomicU64,
    failed: Mutex<Option<strandlog::Error>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl PersistQueue {
    /// A queue on `wal`. `wake` runs on the log's writer thread whenever a round has become durable (or
    /// failed) and must be short: put a token into the poller's inbox, unpark it.
    pub fn new(wal: Arc<Wal>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        PersistQueue {
            wal,
            waiting: Waiting::default(),
            met: Arc::default(),
            signal: Arc::new(Signal { durable: AtomicU64::new(0), failed: Mutex::new(None), wake: Box::new(wake) }),
            last: None,
        }
    }

    /// An empty round, of a size that suits the log. A poller needs only one: [`submit`](Self::submit) empties it.
    pub fn round(&self) -> Round {
        // A batch must fit a segment; a quarter of one leaves room for whatever fills the round.
        let limit = (self.wal.stats().segment_size / 4).min(1 << 20);
        Round::new(limit, self.wal.max_value_bytes(), Arc::clone(&self.met))
    }

    /// Submits a round. When this returns, what it wrote is readable, and `advance` was called for each of
    /// its readies: call [`RawNode::advance_append_async`](raft::RawNode::advance_append_async) there, and send the messages that
    /// need not wait.
    ///
    /// A round in which raft relies on nothing (only commit indexes and checkpoints) is lazy: it becomes
    /// durable with whatever is synced next.
    ///
    /// A round that is too large for one batch is written as several, one after the other. All that it has of one group is in one of them.
    ///
    /// Waits while the log's queue is full (`Options::queue_bytes`), and while a full log is cleaned; [`try_submit`](Self::try_submit) does not.
    ///
    /// # Errors
    ///
    /// What `advance` was not called for is still in the round. It may be submitted again, and takes no further Ready before that. After
    /// [`strandlog::Error::Full`] that makes sense once other batches have written a [checkpoint](crate::GroupStorage::checkpoint) of the groups
    /// that hold most and [compacted](crate::GroupStorage::compact) them (a compaction alone goes only as far as the checkpoint in the log, not
    /// the one that waits in this round); or once a group was [removed](Self::remove), also one of this round. If the log refuses
    /// one group by name, [`forget`](Self::forget) that group: after [`Error::TooLarge`], which means that the round has more of a group than any
    /// batch takes, all others are written. Any other error is final.
    pub fn submit(&mut self, round: &mut Round, advance: impl FnMut(Written)) -> Result<()> {
        self.submit_all(round, true, advance)
    }

    /// As [`submit`](Self::submit), but never waits: for a poller that has something else to do while the log's queue is full or its cleaner
    /// is behind.
    ///
    /// # Errors
    ///
    /// As `submit`, and [`strandlog::Error::Busy`]: try again when `wake` was called, and after a while in any case, because it may be
    /// other pollers' rounds that fill the queue. [`strandlog::Error::Full`] comes sooner than from `submit`, which cleans the log first.
    pub fn try_submit(&mut self, round: &mut Round, advance: impl FnMut(Written)) -> Result<()> {
        self.submit_all(round, false, advance)
    }

    /// A Ready that a round took may be the first of a group's new node, to which nothing is handed over of the one before it. Heard before what
    /// is written is queued: from then on a number that is heard of again would be taken for another node's.
    fn meet(&mut self) {
        self.met.take().into_iter().for_each(|(group, number)| self.waiting.meet(group, number));
    }

    fn submit_all(&mut self, round: &mut Round, wait: bool, mut advance: impl FnMut(Written)) -> Result<()> {
        self.meet();
        let (mut hopeless, mut refused) = (VecDeque::new(), None);
        loop {
            match self.write(&mut round.part, wait) {
                Ok(lsn) => self.hand_over(lsn, &mut round.part, &mut advance),
                Err(strandlog::Error::BatchTooLarge { bytes, limit }) => match round.part.halve() {
                    Some(rest) => {
                        round.rest.push_front(rest);
                        continue;
                    }
                    // A single group's part that no batch takes: the others are still written.
                    None => {
                        refused.get_or_insert_with(|| round.part.too_large(bytes, limit));
                        hopeless.push_back(std::mem::take(&mut round.part));
                    }
                },
                Err(error) => {
                    round.rest.append(&mut hopeless);
                    round.sealed = true;
                    return Err(Error::Log(error));
                }
            }
            match round.rest.pop_front() {
                Some(next) => round.part = next,
                None => break,
            }
        }
        let Some(refused) = refused else {
            round.reset();
            return Ok(());
        };
        round.part = hopeless.pop_front().unwrap_or_default();
        round.rest = hopeless;
        round.sealed = true;
        Err(refused)
    }

    /// Hands over the readies of a part that was written, and queues those that wait for their sync.
    fn hand_over(&mut self, lsn: Option<Lsn>, part: &mut Part, mut advance: impl FnMut(Written)) {
        for taken in part.readies.drain(..) {
            let position = if taken.must_sync() { lsn } else { None };
            let Taken { group, mut ready, pledges } = taken;
            let mut waiting = Persisted { group, number: ready.number(), messages: ready.take_persisted_messages() };
            let mut messages = ready.take_messages();
            drop_misplaced(&mut messages);
            drop_misplaced(&mut waiting.messages);
            if pledges || self.waiting.awaits_pledge(group) {
                waiting.messages.append(&mut messages);
            }
            // First the group learns that it may read what it wrote, then that it is durable.
            advance(Written { group, ready, messages });
            self.waiting.push(position.map(|lsn| lsn.get()), waiting, pledges);
        }
    }

    /// Writes the part. Returns the LSN whose durability it waits for; `None` if it needs no sync.
    fn write(&mut self, part: &mut Part, wait: bool) -> strandlog::Result<Option<Lsn>> {
        let needs_sync = part.needs_sync();
        let batch = &mut part.batch;
        if batch.is_empty() {
            // Another caller's write may have failed: a leader that has nothing to write must not go on sending.
            return self.wal.check().map(|()| None);
        }
        if !needs_sync {
            batch.lazy();
            let pending = if wait { self.wal.submit(batch) } else { self.wal.try_submit(batch) };
            self.last = Some(pending?.lsn());
            return Ok(None);
        }
        let signal = Arc::clone(&self.signal);
        let done = move |outcome| signal.done(outcome);
        let lsn = if wait { self.wal.submit_with(batch, done) } else { self.wal.try_submit_with(batch, done) }?;
        self.last = Some(lsn);
        Ok(Some(lsn))
    }

    /// Takes the group out of the round, even of one that the log refused, and hands over nothing more of it: its Ready, its checkpoint and
    /// everything else of it in this round are dropped, and so is what waits for a sync. The log keeps what it has of the group.
    ///
    /// For a group whose Ready was refused: drop its node and storage, submit the round, [`flush`](Self::flush) (a new node takes what it
    /// finds in the log for durable), and open it anew.
    pub fn forget(&mut self, round: &mut Round, group: u64) {
        round.forget(group);
        self.waiting.forget(group);
    }

    /// Takes the group out of the round, as [`forget`](Self::forget) does, and out of the log: the end of a replica that moved elsewhere.
    ///
    /// Durable with the next sync. The round takes nothing more of the group; open a new one of the same id only after this round was submitted.
    pub fn remove(&mut self, round: &mut Round, group: u64) {
        round.remove(group);
        self.waiting.forget(group);
    }

    /// Hands over each Ready which has become durable since the last call. For each, call
    /// [`RawNode::on_persist_ready`](raft::RawNode::on_persist_ready), *then* send its messages.
    ///
    /// A node numbers its readies from 1. So once a round has taken the first Ready of a group that was opened anew, nothing of the node before
    /// is handed over any more, also if nobody called [`forget`](Self::forget). Between that node's `ready` and `persist` do not poll: the
    /// queue does not know of its Ready yet, and raft would take the news of an earlier one for its own: it would call a snapshot durable that
    /// is not written, and panic once the Ready is.
    ///
    /// # Errors
    ///
    /// A write or sync failed, of this queue or of any other caller: the log is poisoned, nothing more will become durable, and nobody must
    /// hear from these groups again until the log has been reopened.
    pub fn poll(&mut self, each: impl FnMut(Persisted)) -> Result<()> {
        self.meet();
        if let Some(error) = self.signal.failure().as_ref() {
            return Err(Error::Log(error.clone()));
        }
        // While this queue awaits a sync, its callback reports the failure. Otherwise another caller's write may have failed. `Closed` is no
        // failure: what was durable before the log was closed may be handed over.
        if !self.waiting.awaits_sync()
            && let Err(error) = self.wal.check()
            && !matches!(error, strandlog::Error::Closed)
        {
            return Err(Error::Log(error));
        }
        let durable = self.signal.durable.load(Ordering::Acquire);
        self.waiting.release(durable, each);
        Ok(())
    }

    /// Waits until everything submitted through this queue is durable, lazy rounds included.
    pub fn flush(&self) -> Result<()> {
        if let Some(last) = self.last {
            self.wal.sync()?;
            self.wal.wait_durable(last)?;
        }
        Ok(())
    }

    /// The number of readies that wait; merged ones count as one.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The log.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }
}

impl Signal {
    fn done(&self, outcome: strandlog::Result<Lsn>) {
        match outcome {
            Ok(lsn) => {
                self.durable.fetch_max(lsn.get(), Ordering::Release);
            }
            Err(error) => {
                self.failure().get_or_insert(error);
            }
        }
        (self.wake)();
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<strandlog::Error>> {
        // Nothing panics while holding it; if something did, the error inside would still be true.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PersistQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistQueue")
            .field("waiting", &self.waiting.len())
            .field("durable", &self.signal.durable)
            .finish_non_exhaustive()
    }
}
