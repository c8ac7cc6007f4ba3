//! Patience: nobody waits for ever behind a cleaner that goes around and gains nothing.
//!
//! That can happen only where an opening had to let more be carried than the budget: see DESIGN.md, "Accounts".

use super::admit::Admission;
use super::touched::Touched;
use super::{CleanerState, Engine};
use crate::batch::Batch;
use crate::error::Result;
use crate::index::Cell;
use crate::journal::{Class, Sequencer};
use crate::operation::What;

/// A caller waits for this many turns of the cleaner while nobody else finds room. The first may have begun before it came.
const TURNS: u64 = 4;

/// How the log stood when a caller began to wait for a segment, or when another last found room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Turns of the cleaner.
    turns: u64,
    /// Batches that were accepted.
    accepted: u64,
}

impl Patience {
    /// The patience of a caller that still waits. It begins anew if others found room meanwhile: they took what was gained.
    pub fn go_on(before: Option<Self>, engine: &Engine, s: &Sequencer) -> Self {
        let now = Self { turns: engine.cleaner.lock().turns, accepted: s.accepted };
        before.filter(|before| before.accepted == now.accepted).unwrap_or(now)
    }

    /// Whether the cleaner cannot gain what a batch of this class waits for. Segments that readers still hold count as gained.
    pub fn is_over(self, engine: &Engine, s: &Sequencer, class: Class) -> bool {
        self.accepted == s.accepted
            && s.gained() <= s.leaves(class)
            && engine.cleaner.lock().turns.saturating_sub(self.turns) >= TURNS
    }
}

/// Since when pollers have come, which never wait for a segment but come again: nobody else remembers it for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polled {
    patience: Patience,
    /// How often the cleaner had failed then.
    failures: u64,
}

impl Polled {
    /// The cleaner's error, if it failed since.
    pub fn failed(self, cleaner: &CleanerState) -> Result<()> {
        cleaner.failed_since(self.failures)
    }
}

impl Engine {
    /// The patience of a poller, which may have come before. One whose patience is over, or that is told why the cleaner fails, has [used
    /// it up](Engine::polled_enough).
    pub(super) fn patience_of_pollers(&self, s: &Sequencer) -> Patience {
        let before = { self.cleaner.lock().polled };
        let patience = Patience::go_on(before.map(|polled| polled.patience), self, s);
        let mut cleaner = self.cleaner.lock();
        let failures = before.filter(|polled| polled.patience == patience).map(|polled| polled.failures);
        cleaner.polled = Some(Polled { patience, failures: failures.unwrap_or(cleaner.failed.0) });
        patience
    }

    /// The next poller begins anew: the cleaner is given as many turns before what is kept for it is touched once more.
    pub(super) fn polled_enough(&self) {
        self.cleaner.lock().polled = None;
    }

    /// Whether a batch that does not grow only frees something, and something that is there: a batch that changes nothing takes room in a
    /// segment all the same.
    pub(super) fn lets_go(&self, batch: &Batch, adm: &Admission) -> bool {
        let brings = |what: &What| matches!(what, What::Append { .. } | What::Put { .. });
        !batch.ops.iter().any(|op| brings(&op.what))
            && batch.ops.iter().enumerate().any(|(i, op)| {
                let touched = adm.slot(i).and_then(|slot| adm.cells.get(slot).zip(adm.touched.get(slot)));
                touched.is_some_and(|(cell, t)| self.frees(batch, cell, t, op.what))
            })
    }

    fn frees(&self, batch: &Batch, cell: &Cell, t: &Touched, what: What) -> bool {
        let state = cell.lock();
        let holds_below = |first: u64| state.first < first && state.first <= state.last;
        state.exists
            && match what {
                What::Append { .. } | What::Put { .. } => false,
                What::Delete { key } => state.keys.get(batch.bytes_of(key)).is_some(),
                // No more than reports let go.
                What::Truncate { first } => holds_below(state.reaches(first, t.report)),
                What::Cut { from } => from <= state.last,
                // The truncation that waited for it.
                What::Applied { life: Some(life), .. } if !state.is_in(life) => false,
                What::Applied { index, .. } => {
                    self.first_behind_report(cell.id, &state, index).is_some_and(holds_below)
                }
                What::Reset { .. } => state.first <= state.last,
                What::Remove => true,
            }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::{EIO, Fault, SimDisk};
    use crate::engine::submit::tests::block_on;
    use crate::space::Charge;
    use crate::sync::Arc;
    use crate::{Error, Wal};

    /// A thread that would wait for ever is told that the disk failed.
    const FOR_EVER: u64 = 30_000;
    const VOTER: u64 = 1000;

    fn vote(byte: u8) -> Batch {
        std::mem::take(Batch::new().put(VOTER, b"vote", &[byte; 40]).put(VOTER, b"other", &[byte; 40]))
    }

    /// Some segments of small replicas, which the cleaner writes again and again; and so much seems to be carried that what the cleaner
    /// leaves free for it can never be had.
    fn stuck(background: bool) -> (Wal, Charge) {
        let disk = Arc::new(SimDisk::new(256 * (64 << 10) + (64 << 10)));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(background);
        let wal = options.open_disk(disk.clone()).expect("formatted");
        wal.commit(vote(0)).expect("room");
        for replica in 1..=300 {
            drop(wal.submit(Batch::new().append(replica, &[(1, 1, [7; 200]), (2, 1, [8; 200])])).expect("room"));
        }
        wal.sync().expect("durable");
        let mut others = Charge::default();
        wal.engine.seq.lock().accounts.settle(&mut others, Charge { chunks: 0, carried: 1 << 40 });
        disk.fail_at(disk.events() + FOR_EVER, Fault::Error(EIO));
        (wal, others)
    }

    #[test]
    fn nobody_waits_for_ever_behind_a_cleaner_that_gains_nothing() {
        for background in [false, true] {
            let (wal, mut others) = stuck(background);
            let full = |what: &str, outcome: crate::Result<()>| {
                assert!(matches!(outcome, Err(Error::Full(_))), "{what}, threads: {background}: {outcome:?}");
            };
            full("a vote", wal.commit(vote(1)).map(drop));
            full("a task's vote", block_on(async { wal.submit_async(vote(1)).await.map(drop) }));
            let cell = wal.engine.registry.get(1).expect("there");
            full("damage", wal.engine.record_damage_of(&cell));
            // The cleaner itself gets on.
            let far = wal.engine.seq.lock().segments.current() + 1000;
            assert!(!wal.engine.clean_through(far).expect("no failure"), "it cannot be left");
            // But batches that free something find room.
            wal.commit(Batch::new().remove(1)).expect("a removal");
            wal.commit(Batch::new().truncate_prefix(2, 3)).expect("a truncation");
            wal.commit(Batch::new().truncate_suffix(3, 2)).expect("a suffix");
            wal.commit(Batch::new().delete(VOTER, b"other")).expect("a key");
            let task = async { wal.submit_async(std::mem::take(Batch::new().remove(4))).await.map(drop) };
            block_on(task).expect("a task's removal");
            assert!(wal.replica(4).last_index() == 0 && wal.replica(3).last_index() == 1);
            wal.engine.seq.lock().accounts.settle(&mut others, Charge::default());
            wal.commit(std::mem::take(Batch::new().put(VOTER, b"vote", &[2; 40]))).expect("there is room");
        }
    }

    /// As a poller does.
    fn polled(mut submit: impl FnMut() -> crate::Result<()>) -> crate::Result<()> {
        loop {
            match submit() {
                Err(Error::Busy { .. }) => std::thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    /// Nobody else remembers for it since when it has come.
    #[test]
    fn who_never_waits_and_comes_again_is_told_as_who_waits_is() {
        let (wal, mut others) = stuck(true);
        let mut called = 0;
        let outcomes = [
            polled(|| wal.try_submit(vote(1)).map(drop)),
            polled(|| wal.try_submit_with(vote(1), |_| ()).map(drop)),
            // In a callback, so to speak, and a listener.
            polled(|| {
                called += 1;
                crate::engine::without_waiting(|| wal.submit(vote(1)).map(drop))
            }),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Err(Error::Full(_))), "{outcome:?}");
        }
        assert!(called > 1, "the cleaner goes around before it is told so once more");
        // A batch that frees something gets some of what the cleaner can do without.
        for replica in 1..=40 {
            let mut removal = std::mem::take(Batch::new().remove(replica));
            polled(|| wal.try_submit(&mut removal).map(drop)).expect("a removal");
        }
        let full = polled(|| wal.try_submit(vote(1)).map(drop));
        assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
        wal.engine.seq.lock().accounts.settle(&mut others, Charge::default());
        polled(|| wal.try_submit(vote(2)).map(drop)).expect("there is room");
    }

    /// What others took was gained; nor does a reader that still holds a segment have anybody told that the log is full.
    #[test]
    fn patience_begins_anew_where_others_had_room_and_lasts_while_readers_hold_it() {
        let (wal, _) = stuck(false);
        let engine = &wal.engine;
        let began = Patience::go_on(None, engine, &engine.seq.lock());
        let turn = || engine.cleaner.lock().turns += 1;
        (1..TURNS).for_each(|_| turn());
        assert!(!began.is_over(engine, &engine.seq.lock(), Class::Keep), "a turn less");
        turn();
        let mut s = engine.seq.lock();
        assert!(began.is_over(engine, &s, Class::Keep));
        assert_eq!(Patience::go_on(Some(began), engine, &s), began);
        let leaves = s.leaves(Class::Keep);
        let free = s.segments.free.len();
        s.segments.freeing.resize(leaves - free + 1, 0);
        assert!(!began.is_over(engine, &s, Class::Keep), "readers let go of it");
        s.segments.freeing.pop();
        assert!(began.is_over(engine, &s, Class::Keep));
        s.segments.freeing.clear();
        s.accepted += 1;
        assert!(!began.is_over(engine, &s, Class::Keep), "somebody had room");
        let anew = Patience::go_on(Some(began), engine, &s);
        assert!(anew != began && !anew.is_over(engine, &s, Class::Keep));
    }

    /// Four turns of the cleaner for each would take minutes, and its writes wear the device out. Others are told as before.
    #[test]
    fn who_lets_go_again_and_again_waits_out_the_cleaner_once() {
        for background in [false, true] {
            let (wal, mut others) = stuck(background);
            wal.commit(Batch::new().remove(1)).expect("a removal");
            let cleaned = wal.stats().segments_cleaned;
            let accepted = wal.engine.seq.lock().accepted;
            for replica in 2..=250 {
                wal.commit(Batch::new().remove(replica)).expect("a removal");
            }
            if !background {
                let more = wal.stats().segments_cleaned - cleaned;
                assert!(more < 250, "{more} segments were cleaned for 249 removals");
            }
            assert_eq!(wal.engine.seq.lock().accepted, accepted, "it is nothing that was gained");
            let full = wal.commit(vote(1));
            assert!(matches!(full, Err(Error::Full(_))), "threads: {background}: {full:?}");
            // A batch that only seems to free something gets nothing of what is kept for the cleaner.
            for nothing in [
                Batch::new().truncate_prefix(260, 1),
                Batch::new().truncate_suffix(260, 3),
                Batch::new().delete(260, b"no key"),
                Batch::new().remove(1),
                Batch::new().durable_applied(1, 1),
            ] {
                let told = wal.commit(&mut std::mem::take(nothing));
                assert!(matches!(told, Err(Error::Full(_))), "threads: {background}: {told:?}");
            }
            // Once there is room, it is over.
            wal.engine.seq.lock().accounts.settle(&mut others, Charge::default());
            wal.commit(vote(2)).expect("room");
            assert!(!wal.engine.seq.lock().stuck, "segments were gained");
        }
    }

    /// As full as an opening may find a log, or fuller: more is carried than the budget, and the cleaner has its last two segments.
    fn overfull() -> (Wal, u64) {
        const SEGMENTS: u64 = 40;
        let disk = Arc::new(SimDisk::new((SEGMENTS + 1) * (64 << 10)));
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).background(false);
        let wal = options.journal_cap(SEGMENTS * (64 << 10)).open_disk(disk.clone()).expect("formatted");
        let (mut lowered, mut replicas) = (0, 0);
        let stands = || {
            let s = wal.engine.seq.lock();
            (s.segments.free.len(), s.segments.free.len() + s.segments.live.len())
        };
        loop {
            let (free, owns) = stands();
            let grown = owns as u64 >= SEGMENTS - 2;
            if grown && free <= crate::journal::CLEANER_SEGMENTS {
                break;
            }
            // As if nothing was carried: nobody is refused.
            let budget = {
                let mut s = wal.engine.seq.lock();
                let carried = s.accounts.carried();
                lowered += carried;
                s.accounts.settle(&mut Charge { chunks: 0, carried }, Charge::default());
                s.accounts.budget()
            };
            if !grown {
                wal.engine.grow_for_carried(budget).expect("grown");
                assert!(stands().1 > owns, "it grows up to its cap: {owns}");
                continue;
            }
            let mut batch = Batch::new();
            for _ in 0..60 {
                replicas += 1;
                batch.append(replicas, &[(1, 1, [7; 200])]);
            }
            match wal.try_submit(batch) {
                Ok(_) => drop(wal.sync().expect("written")),
                Err(why) => {
                    assert!(matches!(why, Error::Busy { .. } | Error::Full(_)), "{why}");
                    break;
                }
            }
        }
        wal.engine.seq.lock().accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried: lowered });
        disk.fail_at(disk.events() + 50 * FOR_EVER, Fault::Error(EIO));
        (wal, replicas)
    }

    /// One after the other, each in a frame of its own: the cleaner, which has to make room for these, never runs out of it.
    #[test]
    fn thousands_let_go_of_an_overfull_log_and_the_cleaner_goes_round() {
        let (wal, replicas) = overfull();
        {
            let s = wal.engine.seq.lock();
            assert!(s.accounts.carried() > s.accounts.budget() && replicas > 2000, "{replicas} replicas");
        }
        let cleaned = wal.stats().segments_cleaned;
        for replica in 1..=replicas {
            wal.commit(Batch::new().remove(replica)).unwrap_or_else(|why| panic!("replica {replica}: {why}"));
        }
        let more = wal.stats().segments_cleaned - cleaned;
        println!("{more} segments were cleaned for {replicas} removals");
        assert!(more < 4 * replicas, "{more} segments were cleaned for {replicas} removals");
        let newest = wal.engine.seq.lock().segments.current();
        assert!(wal.engine.clean_through(newest).expect("no failure"), "it goes round");
        wal.commit(vote(1)).expect("room");
        wal.commit(Batch::new().append(1, &[(1, 1, [7; 200])])).expect("room");
        assert!(wal.verify(|_| ()).expect("read").is_clean());
    }
}
