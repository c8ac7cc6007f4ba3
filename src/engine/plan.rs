//! Planning: what of a batch goes inline and what is placed directly. Done before any lock is taken.

use super::Engine;
use crate::batch::Batch;
use crate::chain::{PackEntry, Packed, pack};
use crate::charge;
use crate::error::{Error, Result};
use crate::format::crc;
use crate::format::frame::ENTRY_CRC_BYTES;
use crate::format::piece::PieceDesc;
use crate::format::record::{CORE_BYTES, KIND_AND_SEQ, RECORD_HEAD};
use crate::format::varint;
use crate::index::{INLINE_VALUE_BYTES, MAX_INLINE_ENTRY, weight};
use crate::operation::{Meta, Op, What};
use crate::options::{MAX_BATCH_BYTES, MAX_KEY_BYTES, Placement};
use crate::space::Demand;

/// A batch made ready. A thread uses it again and again, so that steady use allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Upper bound on the payload it puts into a frame.
    pub payload: u64,
    /// Upper bound on its records, but for those that begin a life: only admission knows which replicas have none yet.
    pub table: u64,
    /// Upper bound on the records that begin a life.
    creating: u64,
    /// Bytes of pieces.
    pub placed: u64,
    pub entries: u64,
    pub user_bytes: u64,
    /// Pieces of the operations that are placed directly, by the operation's position.
    pub pieces: Vec<(usize, Vec<Packed>)>,
}

impl Plan {
    pub fn bytes(&self) -> u64 {
        self.payload + self.table + self.placed
    }

    fn inline(&self) -> u64 {
        self.payload + self.table + self.creating
    }

    fn clear(&mut self) {
        let Self { payload, table, creating, placed, entries, user_bytes, pieces } = self;
        (*payload, *table, *creating, *placed, *entries, *user_bytes) = (0, 0, 0, 0, 0, 0);
        pieces.clear();
    }

    pub fn pieces_of(&self, op: usize) -> Option<&[Packed]> {
        let i = self.pieces.binary_search_by_key(&op, |&(at, _)| at).ok()?;
        self.pieces.get(i).map(|(_, pieces)| pieces.as_slice())
    }
}

impl Engine {
    pub(super) fn plan(&self, batch: &Batch, plan: &mut Plan) -> Result<()> {
        plan.clear();
        plan.user_bytes = batch.bytes();
        if plan.user_bytes > MAX_BATCH_BYTES {
            return Err(Error::BatchTooLarge { bytes: plan.user_bytes, limit: MAX_BATCH_BYTES });
        }
        plan.creating = batch.ops.len() as u64 * CORE_BYTES;
        if self.all_goes_inline(batch) {
            plan.payload = batch.takes.payload;
            plan.table = batch.takes.at_most.saturating_sub(plan.creating + plan.payload);
            plan.entries = batch.entries();
            return Ok(());
        }
        self.plan_each(batch, plan)
    }

    /// Whether the batch's own sums say that all of it is allowed, fits one frame and is placed nowhere else. Most batches are such: then
    /// none of their operations is looked at.
    fn all_goes_inline(&self, batch: &Batch) -> bool {
        let (run, longest) = (&self.run, batch.longest);
        let entry = u64::from(run.max_entry_bytes.min(MAX_INLINE_ENTRY));
        let inline = match run.placement {
            Placement::Auto => entry.min(run.direct_threshold.into()),
            Placement::Journal => entry,
            Placement::Chain => 0,
        };
        longest.payload < inline
            && longest.key <= MAX_KEY_BYTES as usize
            && longest.value <= INLINE_VALUE_BYTES
            && longest.value as u64 <= self.max_value()
            && batch.takes.at_most <= self.max_inline()
    }

    fn plan_each(&self, batch: &Batch, plan: &mut Plan) -> Result<()> {
        let mut direct: Vec<usize> = Vec::new();
        for (i, op) in batch.ops.iter().enumerate() {
            plan.table += charge::records(op.what);
            match op.what {
                What::Append { first, from, to } => {
                    let run = self.check_run(batch, op.replica, first, from, to)?;
                    plan.entries += (to - from) as u64;
                    if run.direct {
                        direct.push(i);
                    } else {
                        plan.payload += run.payload;
                        plan.table += run.table;
                    }
                }
                What::Put { key, value } => {
                    self.check_key(op.replica, key.len)?;
                    let limit = self.max_value();
                    if value.len as u64 > limit {
                        return Err(Error::ValueTooLarge {
                            replica: op.replica,
                            what: "a value",
                            bytes: value.len as u64,
                            limit,
                        });
                    }
                    if value.len > INLINE_VALUE_BYTES {
                        direct.push(i);
                    } else {
                        plan.table += value.len as u64;
                    }
                }
                What::Delete { key } => self.check_key(op.replica, key.len)?,
                What::Applied { .. } | What::Truncate { .. } | What::Cut { .. } | What::Reset { .. } | What::Remove => {
                }
            }
        }
        self.relieve(plan, batch, &mut direct)?;
        direct.sort_unstable();
        for i in direct {
            let Some(op) = batch.ops.get(i) else { continue };
            let pieces = self.pack_op(batch, op);
            for piece in &pieces {
                plan.placed += piece.buf.len() as u64;
                let extents = u64::from(piece.blocks().div_ceil(self.geo.blocks_per_chunk)) * PieceDesc::EXTENT_BYTES;
                let terms = piece.desc.terms.len() as u64 * 2 * varint::MAX_BYTES as u64;
                plan.table += RECORD_HEAD + PieceDesc::TYPICAL_BYTES + extents + terms;
            }
            plan.pieces.push((i, pieces));
        }
        self.check_fits(plan.inline(), batch)
    }

    /// The error tells what the batch itself counts: parts of it that each count no more than the limit fit. The bytes left behind
    /// `relieve` would not tell that.
    fn check_fits(&self, bytes: u64, batch: &Batch) -> Result<()> {
        let limit = self.max_inline();
        if bytes > limit { Err(Error::BatchTooLarge { bytes: batch.log_bytes(), limit }) } else { Ok(()) }
    }

    /// Where the inline part overflows a frame, the longest runs that are worth chunks are placed directly instead. Each of the others
    /// would take a chunk for next to nothing, and fill the log with what it could carry.
    fn relieve(&self, plan: &mut Plan, batch: &Batch, direct: &mut Vec<usize>) -> Result<()> {
        let limit = self.max_inline();
        // What the descriptors of direct runs will take: known for sure only once they are packed.
        let mut descriptors: u64 = direct.iter().map(|&op| self.descriptors(batch, op)).sum();
        if plan.inline() + descriptors <= limit {
            return Ok(());
        }
        // Inline runs: (bytes, payload, op). The operations in `direct` ascend so far, as they were found.
        let mut movable: Vec<(u64, u64, usize)> = Vec::new();
        for (i, op) in batch.ops.iter().enumerate() {
            if let What::Append { first, from, to } = op.what
                && direct.binary_search(&i).is_err()
                && self.is_worth_chunks(batch.metas.get(from..to).unwrap_or(&[]))
            {
                let run = self.check_run(batch, op.replica, first, from, to)?;
                movable.push((run.payload + run.table, run.payload, i));
            }
        }
        movable.sort_unstable();
        while plan.inline() + descriptors > limit {
            let Some((bytes, payload, op)) = movable.pop() else {
                return self.check_fits(plan.inline() + descriptors, batch);
            };
            plan.payload -= payload;
            plan.table -= bytes - payload;
            descriptors += self.descriptors(batch, op);
            direct.push(op);
        }
        Ok(())
    }

    /// Whether the cleaner, too, would settle the run rather than carry it, if its replica had nothing else. Counts what its changes of
    /// term may cost: so a run that is not worth chunks is less than a quarter of a segment.
    fn is_worth_chunks(&self, run: &[Meta]) -> bool {
        let weight = run.iter().map(|meta| weight(meta.len, self.geo.chunk_bytes)).sum();
        let term_runs = run.chunk_by(|a, b| a.term == b.term).count() as u64;
        Demand { weight, term_runs, ..Demand::default() }.bytes() >= self.small_weight()
    }

    /// Upper bound on the descriptors of an operation that is placed directly.
    fn descriptors(&self, batch: &Batch, op: usize) -> u64 {
        match batch.ops.get(op).map(|op| op.what) {
            Some(What::Append { from, to, .. }) => {
                charge::Run::of(batch.metas.get(from..to).unwrap_or(&[])).descriptors(self.geo.chunk_bytes.into())
            }
            _ => charge::VALUE_DESCRIPTORS,
        }
    }

    fn check_key(&self, replica: u64, len: usize) -> Result<()> {
        let (bytes, limit) = (len as u64, u64::from(MAX_KEY_BYTES));
        if bytes > limit { Err(Error::ValueTooLarge { replica, what: "a key", bytes, limit }) } else { Ok(()) }
    }

    fn check_run(&self, batch: &Batch, replica: u64, first: u64, from: usize, to: usize) -> Result<Run> {
        let mut run = Run { payload: 0, table: 0, direct: self.run.placement == Placement::Chain };
        let mut last_term = None;
        let metas = batch.metas.get(from..to).unwrap_or(&[]);
        // No record of this run has a longer head: indexes only grow, and each count is at most that of all.
        let last = first.saturating_add(metas.len() as u64);
        let head = KIND_AND_SEQ + (varint::len(replica) + varint::len(last) + varint::len(metas.len() as u64)) as u64;
        for (i, meta) in metas.iter().enumerate() {
            if meta.len > self.run.max_entry_bytes {
                return Err(Error::EntryTooLarge {
                    replica,
                    index: first.saturating_add(i as u64),
                    bytes: meta.len.into(),
                    limit: self.run.max_entry_bytes.into(),
                });
            }
            run.direct |= meta.len > MAX_INLINE_ENTRY;
            run.payload += u64::from(meta.len) + ENTRY_CRC_BYTES as u64;
            run.table += varint::len(meta.len.into()) as u64;
            if last_term != Some(meta.term) {
                last_term = Some(meta.term);
                run.table += head + varint::len(meta.term) as u64;
            }
        }
        run.direct |= run.payload + run.table > self.max_inline();
        run.direct |= self.run.placement == Placement::Auto && run.payload >= u64::from(self.run.direct_threshold);
        Ok(run)
    }

    fn pack_op(&self, batch: &Batch, op: &Op) -> Vec<Packed> {
        let owner = op.replica;
        match op.what {
            What::Append { first, from, to } => {
                let metas = batch.metas.get(from..to).unwrap_or(&[]);
                let entries: Vec<_> = metas
                    .iter()
                    .map(|m| PackEntry {
                        term: m.term,
                        payload: batch.payload(m),
                        payload_crc: m.payload_crc,
                        bulk: batch.bulk(m),
                    })
                    .collect();
                pack(self.geo.seed, owner, first, &entries, self.geo.chunk_bytes, || self.next_id())
            }
            What::Put { value, .. } => {
                let payload = batch.bytes_of(value);
                let entry = PackEntry { term: 0, payload, payload_crc: crc::of(payload), bulk: None };
                pack(self.geo.seed, owner, 0, &[entry], self.geo.chunk_bytes, || self.next_id())
            }
            _ => Vec::new(),
        }
    }
}

struct Run {
    payload: u64,
    table: u64,
    direct: bool,
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::Wal;
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// What a batch brings is written into the journal or placed directly, by what it is, by choice or to make room; some batches overflow.
    #[test]
    fn a_batch_takes_no_more_than_it_says_wherever_it_comes_to_lie() {
        let mut rng = StdRng::seed_from_u64(1);
        for placement in [Placement::Auto, Placement::Chain, Placement::Journal] {
            let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(4096);
            let options = options.placement(placement).background(false);
            let wal = options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
            let (mut taken, mut refused) = (Plan::default(), 0);
            for _ in 0..300 {
                let mut batch = Batch::new();
                for _ in 0..rng.random_range(1..150) {
                    random_operation(&mut batch, &mut rng);
                }
                let planned = wal.engine.plan(&batch, &mut taken);
                match planned {
                    Ok(()) => assert!(taken.inline() <= batch.log_bytes(), "{taken:?}: {batch:?}"),
                    Err(Error::BatchTooLarge { limit, .. }) => {
                        refused += 1;
                        assert!(batch.log_bytes() > limit && limit >= (64 << 10) / 2, "{batch:?}");
                    }
                    Err(error) => panic!("{error}"),
                }
                // What is taken back no longer counts.
                let (before, named) = (batch.log_bytes(), batch.ops.iter().any(|op| op.replica == u64::MAX));
                batch.withdraw(u64::MAX);
                assert_eq!(batch.log_bytes() < before, named);
                batch.clear();
                assert_eq!(batch.log_bytes(), 0);
            }
            assert!((10..290).contains(&refused), "{placement:?}: {refused} refused");
        }
    }

    fn random_operation(batch: &mut Batch, rng: &mut StdRng) {
        let replica = u64::MAX - rng.random_range(0..9);
        let key = vec![7; rng.random_range(0..=MAX_KEY_BYTES as usize)];
        match rng.random_range(0..9) {
            0 => {
                let most = [9, 200, 5000, 32 << 10][rng.random_range(0..4)];
                let len = rng.random_range(0..=most);
                batch.put(replica, &key, &vec![7; len])
            }
            1 => batch.delete(replica, &key),
            2 => batch.durable_applied(replica, u64::MAX),
            3 => batch.truncate_prefix(replica, u64::MAX),
            4 => batch.truncate_suffix(replica, u64::MAX),
            5 => batch.install_snapshot(replica, u64::MAX - 1, u64::MAX),
            // Seldom: it ends all that was asked of the replica before.
            6 if rng.random_ratio(1, 20) => batch.remove(replica),
            _ => {
                let (count, most) = [(1, 9), (1, 6000), (70, 9), (9, 3000), (1, 60 << 10)][rng.random_range(0..5)];
                let first = u64::MAX - 100;
                let terms = rng.random_range(1..=count);
                let entries: Vec<_> = (0..count)
                    .map(|i| (first + i, u64::MAX - count + i % terms, vec![7; rng.random_range(0..=most)]))
                    .collect();
                batch.append(replica, &entries)
            }
        };
    }

    /// Each as long as may be, and one byte longer. What is longest need not come last.
    #[test]
    fn what_is_long_is_looked_at() {
        let open = |placement| {
            let options = Wal::options().segment_size(64 << 10).chunk_size(4096).direct_threshold(6000);
            let options = options.max_entry_bytes(9000).placement(placement).background(false);
            options.open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted")
        };
        let (auto, journal, chain) = (open(Placement::Auto), open(Placement::Journal), open(Placement::Chain));
        let by_sums = |wal: &Wal, fill: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            fill(&mut batch);
            batch.append(2, &[(1, 1, b"short")]).put(2, b"k", b"v");
            wal.engine.all_goes_inline(&batch)
        };
        let crc = ENTRY_CRC_BYTES;
        let run = |len: usize| {
            move |batch: &mut Batch| {
                batch.append(1, &[(1, 1, vec![7; len])]);
            }
        };
        assert_eq!([5999 - crc, 6000 - crc].map(|len| by_sums(&auto, &run(len))), [true, false], "the threshold");
        assert_eq!([8999 - crc, 9000 - crc].map(|len| by_sums(&journal, &run(len))), [true, false], "an entry");
        assert!(!by_sums(&chain, &|_| {}), "nothing goes inline there");
        let key = |len: usize| {
            move |batch: &mut Batch| {
                batch.put(1, &vec![7; len], b"v");
            }
        };
        let gone = |len: usize| {
            move |batch: &mut Batch| {
                batch.delete(1, &vec![7; len]);
            }
        };
        let value = |len: usize| {
            move |batch: &mut Batch| {
                batch.put(1, b"k", &vec![7; len]);
            }
        };
        let most = [MAX_KEY_BYTES as usize, MAX_KEY_BYTES as usize + 1];
        assert_eq!(most.map(|len| by_sums(&auto, &key(len))), [true, false], "a key");
        assert_eq!(most.map(|len| by_sums(&auto, &gone(len))), [true, false], "a key to delete");
        let most = [INLINE_VALUE_BYTES, INLINE_VALUE_BYTES + 1];
        assert_eq!(most.map(|len| by_sums(&auto, &value(len))), [true, false], "a value");
        let many = |bytes: u64| {
            move |batch: &mut Batch| {
                (3..)
                    .take_while(|&replica| batch.append(replica, &[(1, 1, [7; 1000])]).log_bytes() < bytes)
                    .for_each(drop)
            }
        };
        let most = auto.engine.max_inline();
        assert_eq!([most - 2000, most].map(|bytes| by_sums(&auto, &many(bytes))), [true, false], "all of it");
    }

    /// Also behind what was taken back, moved into another, or refused.
    #[test]
    fn the_sums_of_a_batch_are_those_of_its_operations() {
        let mut rng = StdRng::seed_from_u64(2);
        let options = Wal::options().segment_size(1 << 20).chunk_size(4096).direct_threshold(16 << 10);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(16 << 20))).expect("formatted");
        let (mut by_sums, mut by_each, mut sums) = (Plan::default(), Plan::default(), 0);
        for round in 0..600 {
            let mut batch = Batch::new();
            for _ in 0..rng.random_range(1..60) {
                random_operation(&mut batch, &mut rng);
                if rng.random_ratio(1, 10) {
                    batch.withdraw(u64::MAX - rng.random_range(0..9));
                }
                // A run that is refused leaves nothing behind.
                batch.append(7, &[(3, 1, b"a"), (5, 1, b"b")]).withdraw(7);
            }
            if rng.random_ratio(1, 4) {
                batch = batch.split_off(|replica| replica % 2 == 0);
            }
            batch.check().expect("nothing contradicts itself");
            if !wal.engine.all_goes_inline(&batch) {
                continue;
            }
            sums += 1;
            wal.engine.plan(&batch, &mut by_sums).expect("it goes inline");
            by_each.clear();
            by_each.user_bytes = batch.bytes();
            by_each.creating = batch.ops.len() as u64 * CORE_BYTES;
            wal.engine.plan_each(&batch, &mut by_each).expect("as each of it does");
            let known = |plan: &Plan| (plan.payload, plan.entries, plan.user_bytes, plan.placed, plan.pieces.len());
            assert_eq!(known(&by_sums), known(&by_each), "round {round}: {batch:?}");
            assert!(by_sums.table >= by_each.table, "round {round}: {by_sums:?}, {by_each:?}, {batch:?}");
        }
        assert!((100..500).contains(&sums), "{sums} by their sums");
    }

    /// A batch that overflows a frame: none of its operations is looked for among all others, or it would not end.
    #[test]
    fn a_batch_of_many_operations_is_refused() {
        let options = Wal::options().segment_size(64 << 10).chunk_size(4096).placement(Placement::Chain);
        let wal = options.background(false).open_disk(Arc::new(SimDisk::new(4 << 20))).expect("formatted");
        let mut batch = Batch::new();
        for replica in 1..=2_500_000_u64 {
            batch.append(replica, &[(1, 1, b"x")]);
        }
        let refused = wal.engine.plan(&batch, &mut Plan::default());
        assert!(matches!(refused, Err(Error::BatchTooLarge { .. })), "{refused:?}");
    }
}
