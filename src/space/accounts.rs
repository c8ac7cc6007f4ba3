//! Accounts: what must be held back so that the cleaner never waits for what it frees. The proof is in DESIGN.md.

/// What one replica holds of the accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Free chunks held for settling its journal-resident entries.
    pub chunks: u64,
    /// Bytes of the journal that are carried for it: metadata, and its entries while it is small.
    pub carried: u64,
}

/// What a replica's state asks of the accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Upper bound on the chunk space of its journal-resident entries.
    pub weight: u64,
    /// What they take in the journal.
    pub journal_bytes: u64,
    /// What its metadata takes in the journal.
    pub meta_bytes: u64,
    /// Changes of term: each may cost a piece of its own in thirty-two.
    pub term_runs: u64,
}

/// The sums over all replicas, and their bounds.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    reserved: u64,
    carried: u64,
    /// A quarter of the journal's floor.
    budget: u64,
    chunk_bytes: u64,
    /// Weight below which a replica is carried rather than settled.
    small: u64,
}

/// What the descriptors of the pieces in one reserved chunk may take in the journal.
const DESCRIPTORS_PER_CHUNK: u64 = 2 * crate::format::piece::PieceDesc::TYPICAL_BYTES;
/// Small replicas are carried while all that is carried stays below this part of the budget. The rest is for metadata, which has
/// no other place: were the budget filled by small replicas, the next key would find the log full.
const SMALL_SHARE: u64 = 2;
/// What a change of term may cost in chunk space: a block for every thirty-two.
const WEIGHT_PER_TERM: u64 = 4096 / crate::format::piece::MAX_TERM_RUNS as u64;

impl Accounts {
    pub fn new(chunk_bytes: u32, budget: u64, carry_percent: u8) -> Self {
        let chunk_bytes = u64::from(chunk_bytes);
        let small = chunk_bytes * u64::from(carry_percent) / 100;
        Self { reserved: 0, carried: 0, budget, chunk_bytes, small }
    }

    /// Chunks held back in all.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes of metadata and small replicas.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// The bound on [`Accounts::carried`].
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// What `demand` is charged, given what the replica is charged now.
    ///
    /// Small replicas are carried while the budget has room; beyond it they reserve chunks like large ones.
    pub fn price(&self, now: Charge, demand: Demand) -> Charge {
        if demand.journal_bytes == 0 {
            return Charge { chunks: 0, carried: demand.meta_bytes };
        }
        let small = Charge { chunks: 0, carried: demand.meta_bytes + demand.journal_bytes };
        let others = self.carried - now.carried.min(self.carried);
        if demand.weight < self.small && others + small.carried <= self.budget / SMALL_SHARE {
            return small;
        }
        let weight = demand.weight + demand.term_runs * WEIGHT_PER_TERM;
        // What fits one chunk takes one; next-fit over several may waste the last.
        let chunks = if weight <= self.chunk_bytes { 1 } else { weight.div_ceil(self.chunk_bytes) + 1 };
        Charge { chunks, carried: demand.meta_bytes + chunks * DESCRIPTORS_PER_CHUNK }
    }

    /// Replaces what a replica is charged.
    pub fn settle(&mut self, charge: &mut Charge, new: Charge) {
        self.reserved = self.reserved - charge.chunks.min(self.reserved) + new.chunks;
        self.carried = self.carried - charge.carried.min(self.carried) + new.carried;
        *charge = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_replicas_are_carried_until_the_budget_is_spent_and_then_reserve() {
        let mut accounts = Accounts::new(65536, 2000, 12);
        let demand = Demand { weight: 500, journal_bytes: 400, meta_bytes: 50, term_runs: 1 };
        let (mut a, mut b, mut c) = Default::default();
        for charge in [&mut a, &mut b] {
            let new = accounts.price(*charge, demand);
            assert_eq!(new, Charge { chunks: 0, carried: 450 });
            accounts.settle(charge, new);
        }
        let new = accounts.price(c, demand);
        assert_eq!(new.chunks, 1);
        accounts.settle(&mut c, new);
        assert_eq!((accounts.reserved(), accounts.carried()), (1, 900 + new.carried));
        accounts.settle(&mut a, Charge::default());
        accounts.settle(&mut b, Charge::default());
        accounts.settle(&mut c, Charge::default());
        assert_eq!((accounts.reserved(), accounts.carried()), (0, 0));
    }

    /// Every bound, from both sides: too low and the cleaner one day waits for what it frees.
    #[test]
    fn what_a_demand_is_charged() {
        let accounts = Accounts::new(65_536, 1000, 50);
        let price = |weight, term_runs| {
            let charge =
                accounts.price(Charge::default(), Demand { weight, journal_bytes: 100, meta_bytes: 10, term_runs });
            (charge.chunks, charge.carried)
        };
        assert_eq!(price(32_767, 9), (0, 110), "half a chunk is what is carried");
        assert_eq!(price(32_768, 0), (1, 10 + 128));
        assert_eq!(price(65_536, 0), (1, 10 + 128), "what fits one chunk takes one");
        assert_eq!(price(65_537, 0), (3, 10 + 3 * 128), "next-fit may waste the last");
        assert_eq!(price(65_536 - 128, 1), (1, 10 + 128));
        assert_eq!(price(65_536 - 128, 2), (3, 10 + 3 * 128), "a change of term costs 128");
        assert_eq!(price(2 * 65_536, 0), (3, 10 + 3 * 128));
        assert_eq!(price(2 * 65_536 + 1, 0), (4, 10 + 4 * 128));
        let nothing =
            accounts.price(Charge::default(), Demand { weight: 7, journal_bytes: 0, meta_bytes: 10, term_runs: 1 });
        assert_eq!(nothing, Charge { chunks: 0, carried: 10 });
    }

    #[test]
    fn half_of_the_budget_is_for_small_replicas_their_own_charge_apart() {
        let mut accounts = Accounts::new(65_536, 1000, 50);
        let (mut others, mut own) = (Charge::default(), Charge::default());
        accounts.settle(&mut others, Charge { chunks: 2, carried: 300 });
        accounts.settle(&mut own, Charge { chunks: 0, carried: 150 });
        assert_eq!((accounts.reserved(), accounts.carried(), accounts.budget()), (2, 450, 1000));
        let demand = |meta_bytes| Demand { weight: 100, journal_bytes: 100, meta_bytes, term_runs: 0 };
        assert_eq!(
            accounts.price(own, demand(100)),
            Charge { chunks: 0, carried: 200 },
            "300 and 200 are half of 1000"
        );
        assert_eq!(accounts.price(own, demand(101)), Charge { chunks: 1, carried: 101 + 128 });
        accounts.settle(&mut others, Charge { chunks: 5, carried: 20 });
        assert_eq!((accounts.reserved(), accounts.carried()), (5, 170));
        assert_eq!(others, Charge { chunks: 5, carried: 20 });
    }
}
