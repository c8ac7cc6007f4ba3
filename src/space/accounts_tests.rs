//! What replicas are charged, and what the journal leaves for whom.

use super::*;

const SEGMENT: u64 = 4 << 20;

fn accounts(budget: u64, percent: u8) -> Accounts {
    Accounts::new(65_536, SEGMENT, percent, (16, 16)).with_budget(budget)
}

#[test]
fn small_replicas_are_carried_until_the_budget_is_spent_and_then_reserve() {
    let mut accounts = accounts(1300, 12);
    let demand =
        Demand { weight: 500, journal_bytes: 400, meta_bytes: 50, term_runs: 1, spans: 1, ..Demand::default() };
    let (mut a, mut b, mut c) = Default::default();
    for charge in [&mut a, &mut b] {
        let new = accounts.price(*charge, demand, 2);
        assert_eq!(new, Charge { chunks: 0, carried: 450 });
        accounts.settle(charge, new);
    }
    let new = accounts.price(c, demand, 2);
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
    let accounts = accounts(1000, 50);
    let price = |weight, term_runs| {
        let demand = Demand { weight, journal_bytes: 100, meta_bytes: 10, term_runs, spans: 1, ..Demand::default() };
        let charge = accounts.price(Charge::default(), demand, 2);
        (charge.chunks, charge.carried)
    };
    assert_eq!(price(32_767, 9), (0, 110), "half a chunk is what is carried");
    assert_eq!(price(32_768, 0), (1, 10 + 128));
    assert_eq!(price(65_536, 0), (1, 10 + 128), "what fits one chunk takes one");
    assert_eq!(price(65_537, 0), (2, 10 + 2 * 128));
    assert_eq!(price(65_536 - 156, 1), (1, 10 + 128));
    assert_eq!(price(65_536 - 156, 2), (2, 10 + 2 * 128), "a change of term costs 156");
    assert_eq!(price(2 * 65_536, 0), (2, 10 + 2 * 128));
    assert_eq!(price(2 * 65_536 + 1, 0), (3, 10 + 3 * 128));
    let spans = |spans| Demand { weight: 65_536 - 2 * 4992, spans, ..Demand::default() }.chunks(65_536);
    assert_eq!([0, 1, 2, 3, 4].map(spans), [1, 1, 1, 1, 2], "a block and a header where a run ends, and a fifth of it");
    let ends = |spans, term_runs| {
        let demand = Demand { weight: 1000, spans, term_runs, ..Demand::default() };
        let held = demand.held(65_536);
        (held.chunks, held.pieces)
    };
    assert_eq!([ends(1, 31), ends(1, 32), ends(5, 0), ends(5, 64)], [(1, 2), (1, 3), (1, 6), (1, 8)]);
    let demand = Demand { weight: 0, journal_bytes: 0, meta_bytes: 10, term_runs: 1, spans: 0, ..Demand::default() };
    let nothing = accounts.price(Charge::default(), demand, 2);
    assert_eq!(nothing, Charge { chunks: 0, carried: 10 });
}

#[test]
fn three_quarters_of_the_budget_are_for_small_replicas_their_own_charge_apart() {
    let mut accounts = accounts(1000, 50);
    let (mut others, mut own) = (Charge::default(), Charge::default());
    accounts.settle(&mut others, Charge { chunks: 2, carried: 550 });
    accounts.settle(&mut own, Charge { chunks: 0, carried: 150 });
    assert_eq!((accounts.reserved(), accounts.carried(), accounts.budget()), (2, 700, 1000));
    let demand = |meta_bytes| Demand { weight: 100, journal_bytes: 100, meta_bytes, spans: 1, ..Demand::default() };
    assert_eq!(
        accounts.price(own, demand(100), 2),
        Charge { chunks: 0, carried: 200 },
        "550 and 200 are three quarters of 1000"
    );
    assert_eq!(accounts.price(own, demand(101), 2), Charge { chunks: 1, carried: 101 + 128 });
    accounts.settle(&mut others, Charge { chunks: 5, carried: 20 });
    assert_eq!((accounts.reserved(), accounts.carried()), (5, 170));
    assert_eq!(others, Charge { chunks: 5, carried: 20 });
}

/// A replica that shrinks stays carried even if others have spent the budget since: nobody checks whether there are chunks for it.
#[test]
fn a_small_replica_that_does_not_grow_takes_no_chunk() {
    let mut accounts = accounts(1000, 50);
    let (mut own, mut others) = Default::default();
    accounts.settle(&mut own, Charge { chunks: 0, carried: 300 });
    accounts.settle(&mut others, Charge { chunks: 0, carried: 700 });
    let demand = |bytes| Demand { weight: 100, journal_bytes: bytes, meta_bytes: 50, spans: 1, ..Demand::default() };
    assert_eq!(accounts.price(own, demand(250), 2), own);
    assert_eq!(accounts.price(own, demand(100), 2), Charge { chunks: 0, carried: 150 });
    assert_eq!(accounts.price(own, demand(251), 2).chunks, 1);
}

/// Exact to the segment: if what is carried needed one more than the cleaner was left, it would stop.
#[test]
fn who_holds_chunks_is_carried_only_where_the_cleaner_has_what_it_needs_for_it() {
    let mut accounts = Accounts::new(65_536, 65_536, 50, (400, 400));
    let each = accounts.sizes.keeps_one;
    let demand = |carried| Demand { weight: 1, journal_bytes: carried, spans: 1, ..Demand::default() };
    let (held, carried) = (Charge { chunks: 1, carried: 128 }, |carried| Charge { chunks: 0, carried });
    for others in [0, 3 * each, 5 * each + 7] {
        let mut charge = Charge::default();
        accounts.settle(&mut charge, carried(others + held.carried));
        let rest = each - others % each;
        let free = 2 + (others / each) as usize;
        assert_eq!(accounts.price(held, demand(rest - 1), free), carried(rest - 1));
        assert_eq!(accounts.price(held, demand(rest), free), held, "a segment is missing");
        assert_eq!(accounts.price(held, demand(rest), free + 1), carried(rest));
        assert_eq!(accounts.price(held, demand(1), free - 1), held);
        assert_eq!(accounts.price(carried(128), demand(rest), free), carried(rest), "it holds none");
        assert!(accounts.is_covered(free) == (others % each + held.carried < each) && !accounts.is_covered(free - 1));
        accounts.settle(&mut charge, Charge::default());
    }
}

#[test]
fn what_comes_while_entries_are_settled_reserves_chunks_of_its_own() {
    let accounts = accounts(1000, 50);
    let chunks = |pledge: &Pledge| {
        let demand = Demand { meta_bytes: 10, pledged: Some(pledge.held), ..pledge.fresh };
        accounts.price(Charge::default(), demand, 2).chunks
    };
    let mut pledge = Pledge::new(Held { chunks: 3, pieces: 6, carried: 0 }, Demand::default(), None);
    assert_eq!(chunks(&pledge), 3);
    (pledge.fresh.weight, pledge.fresh.journal_bytes) = (1, 25);
    assert_eq!(chunks(&pledge), 4, "small as it is");
    pledge.held.chunks = 0;
    assert_eq!(chunks(&pledge), 1);
}

#[test]
fn the_budget_is_half_of_what_the_journal_does_not_keep_back() {
    let of = |segment: u64, slabs| Accounts::new(4096, segment, 50, (slabs, 4000)).budget() * 100 / segment;
    assert_eq!([3, 6, 12, 64, 1003].map(|n| of(SEGMENT, n)), [0, 143, 430, 2918, 47840]);
    assert_eq!([3, 6, 12, 64, 1003].map(|n| of(64 << 10, n)), [0, 95, 286, 1938, 31784]);
    let mut accounts = Accounts::new(65_536, SEGMENT, 50, (12, 20));
    let before = accounts.budget();
    accounts.resize(21);
    assert_eq!(accounts.budget(), 2 * before);
}

/// In any geometry, as much is left for appends as for what is carried, beside the segments kept for cleaning it.
#[test]
fn a_journal_whose_budget_is_spent_has_room_for_appends() {
    for segment in (16..=26).map(|n| 1_u64 << n) {
        for chunk in (12..=22).map(|n| 1_u32 << n).filter(|&c| u64::from(c) <= segment) {
            for (slabs, percent) in (6..=4000).zip([1, 50, 100].into_iter().cycle()) {
                let mut accounts = Accounts::new(chunk, segment, percent, (slabs, slabs));
                let carried = accounts.budget();
                accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried });
                let useful = accounts.sizes.useful();
                let left = slabs - RESERVED_SLABS - accounts.cleaning() as u64;
                assert!(left * useful >= 2 * carried, "{segment} {chunk} {slabs}: {carried} carried");
                assert!(carried * 4 >= slabs * useful / 2, "{segment} {chunk} {slabs}: only {carried} carried");
            }
        }
    }
}

/// One full segment after the other, oldest first: what each takes is there before it is given back.
#[test]
fn the_cleaner_gets_around_a_journal_full_of_what_is_carried() {
    for segment in (16..=26).map(|n| 1_u64 << n) {
        for slabs in [6, 7, 12, 40, 300, 4000] {
            let mut accounts = Accounts::new(4096, segment, 50, (slabs, slabs));
            let carried = accounts.budget();
            accounts.settle(&mut Charge::default(), Charge { chunks: 0, carried });
            // Three quarters of each are carried, and a quarter is reserved for: the cleaner never moves more forward.
            let full = (carried * 4).div_ceil(3 * segment);
            let mut kept = (2 + accounts.cleaning() as u64) * segment;
            for n in 0..full {
                let taken = segment + segment * accounts.sizes.waste / accounts.sizes.useful();
                assert!(taken <= kept, "{segment} {slabs}: segment {n} of {full} takes {taken} of {kept}");
                kept = kept - taken + segment;
            }
        }
    }
}

#[test]
fn the_journal_grows_before_the_budget_is_spent_and_shrinks_when_less_would_do() {
    let mut accounts = Accounts::new(65_536, SEGMENT, 50, (31, 40));
    let mut own = Charge::default();
    let mut carry = |accounts: &mut Accounts, segments: u64| {
        accounts.settle(&mut own, Charge { chunks: 0, carried: segments * SEGMENT });
    };
    // The budget is more than thirteen segments, of which three quarters are for small replicas.
    carry(&mut accounts, 9);
    assert!(!accounts.wants_to_grow() && !accounts.may_shrink(), "one more is just left");
    carry(&mut accounts, 8);
    assert!(accounts.may_shrink());
    accounts.press();
    assert!(accounts.wants_to_grow(), "somebody waits for it");
    accounts.resize(31);
    assert!(!accounts.wants_to_grow());
    carry(&mut accounts, 10);
    assert!(accounts.wants_to_grow());
    let slab = SEGMENT / 65_536;
    assert!(accounts.may_grow(slab) && !accounts.may_grow(slab - 1));
    accounts.deny(3 * slab);
    assert!(!accounts.may_grow(4 * slab - 1) && accounts.may_grow(4 * slab), "a slab more than there was");
    accounts.resize(40);
    carry(&mut accounts, 20);
    assert!(!accounts.wants_to_grow() && !accounts.may_grow(u64::MAX), "it has all that it may have");
}
