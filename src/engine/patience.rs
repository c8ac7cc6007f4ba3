//! Patience: nobody waits for ever behind a cleaner that goes around and gains nothing.
//!
//! That can be only where an opening had to let more be carried than the budget: see DESIGN.md, "Accounts".

use super::Engine;
use crate::batch::Batch;
use crate::journal::{Class, Sequencer};
use crate::operation::What;

/// So many turns of the cleaner are waited for while nobody else finds room. The first may have begun before.
const TURNS: u64 = 4;

/// How the log stood when somebody began to wait for a segment, or when somebody else had one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Turns of the cleaner.
    turns: u64,
    /// Batches that were accepted.
    accepted: u64,
}

impl Patience {
    /// Of one who waits still. It begins anew where others had room meanwhile: they took what was gained.
    pub fn go_on(before: Option<Self>, engine: &Engine, s: &Sequencer) -> Self {
        let now = Self { turns: engine.cleaner.lock().turns, accepted: s.accepted };
        before.filter(|before| before.accepted == now.accepted).unwrap_or(now)
    }

    /// Whether the cleaner cannot gain what one of this class waits for. What readers still hold it has gained.
    pub fn is_over(self, engine: &Engine, s: &Sequencer, class: Class) -> bool {
        let gained = s.segments.free.len() + s.segments.leaving.len() + s.segments.freeing.len();
        self.accepted == s.accepted
            && gained <= s.leaves(class)
            && engine.cleaner.lock().turns.saturating_sub(self.turns) >= TURNS
    }
}

/// Whether a batch that does not grow only lets go of something.
pub(super) fn lets_go(batch: &Batch) -> bool {
    !batch.ops.iter().any(|op| matches!(op.what, What::Append { .. } | What::Put { .. }))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::sim::{EIO, Fault, SimDisk};
    use crate::engine::submit::tests::block_on;
    use crate::space::Charge;
    use crate::sync::Arc;
    use crate::{Error, Wal};

    /// Whoever waits for ever is told that the disk failed.
    const FOR_EVER: u64 = 30_000;
    const VOTER: u64 = 1000;

    fn vote(byte: u8) -> Batch {
        std::mem::take(Batch::new().put(VOTER, b"vote", &[byte; 40]).put(VOTER, b"other", &[byte; 40]))
    }

    /// Some segments of small replicas, which the cleaner writes again and again; and what it leaves free for all that seems to be carried can
    /// never be had.
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
            // But for who lets go of something.
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
}
