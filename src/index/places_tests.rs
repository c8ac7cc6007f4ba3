//! Places: against a map, and where pieces and spans begin and end.

use super::super::weight::JOURNAL_OVERHEAD;
use super::*;
use crate::format::piece::PieceDesc;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smallvec::smallvec;
use std::collections::BTreeMap;

const CHUNK: u32 = 65536;

fn piece(id: u64, first: u64, count: u32) -> ChainPiece {
    let desc = PieceDesc {
        id,
        first,
        count,
        slots: count,
        bare: false,
        bytes: 100,
        crc: 0,
        terms: smallvec![],
        extents: smallvec![Extent { block: id as u32, blocks: 1 }],
    };
    ChainPiece { desc, meta_seq: 0, mem: None }
}

/// Every operation against a plain map from index to place.
#[test]
fn agrees_with_a_map_under_random_operations() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut places = Places::default();
        let mut map: BTreeMap<u64, Result<Loc, u64>> = BTreeMap::new();
        let mut freed = Vec::new();
        let (mut next, mut low) = (1_u64, 1_u64);
        for step in 0..80 {
            let i = rng.random_range(low..next + 1);
            match rng.random_range(0..6) {
                0 | 1 => {
                    places.cut_from(i, CHUNK, &mut freed);
                    map.split_off(&i);
                    let n = rng.random_range(1..6);
                    let locs: Vec<_> = (0..n).map(|k| Loc::new(step * 1000 + k, (step * k) as u32)).collect();
                    places.push(i, locs.iter().copied(), CHUNK);
                    map.extend(locs.iter().enumerate().map(|(k, &l)| (i + k as u64, Ok(l))));
                    next = i + n;
                }
                2 => {
                    places.drop_below(i, CHUNK, &mut freed);
                    map = map.split_off(&i);
                    low = i;
                }
                3 => {
                    let n = rng.random_range(1..4);
                    if (i..i + n).all(|k| matches!(map.get(&k), Some(Ok(_)))) {
                        let locs: Vec<_> = (0..n).map(|k| Loc::new(step * 1000 + k, 7)).collect();
                        places.set_journal(i, locs.iter().copied(), CHUNK);
                        map.extend(locs.iter().enumerate().map(|(k, &l)| (i + k as u64, Ok(l))));
                    }
                }
                4 => {
                    let n = rng.random_range(1..5);
                    if (i..i + n).all(|k| matches!(map.get(&k), Some(Ok(_)))) {
                        assert!(places.set_chain(piece(step + 1, i, n as u32), CHUNK));
                        map.extend((i..i + n).map(|k| (k, Err(step + 1))));
                    }
                }
                _ => {
                    let n = rng.random_range(1..5);
                    if (i..i + n).all(|k| matches!(map.get(&k), Some(Ok(_)))) {
                        places.forget_journal(i, i + n - 1, CHUNK);
                        map.retain(|k, _| !(i..i + n).contains(k));
                    }
                }
            }
            // Below `low` a piece may still hold the dead; the replica's first index hides them.
            for k in low..next + 3 {
                let got = places.get(k).map(|p| match p {
                    Place::Journal(l) => Ok(l),
                    Place::Chain(p) => Err(p.desc.id),
                });
                assert_eq!(got, map.get(&k).copied(), "seed {seed} step {step} index {k}");
            }
            let want: u64 = map.values().flatten().map(|l| weight(l.len(), CHUNK)).sum();
            assert_eq!(places.weight(), want, "seed {seed} step {step}");
            let holes: u64 = places.holes(low, next).iter().map(|(a, b)| b - a + 1).sum();
            assert_eq!(holes, next - low + 1 - map.keys().filter(|&&k| k >= low && k <= next).count() as u64);
        }
    }
}

/// Also where its end was overwritten; and never another that begins where it began.
#[test]
fn a_piece_is_found_by_where_it_begins() {
    let mut places = Places::default();
    assert!(places.piece_mut(10, 1).is_none() && places.pieces_from(0).next().is_none());
    for (id, first) in [(1, 10), (2, 15), (3, 30)] {
        assert!(places.set_chain(piece(id, first, 5), CHUNK));
    }
    places.cut_from(32, CHUNK, &mut Vec::new());
    for (id, first) in [(1, 10), (2, 15), (3, 30)] {
        assert_eq!(places.piece_mut(first, id).map(|p| p.desc.id), Some(id));
    }
    for (id, first) in [(2, 10), (2, 16), (3, 31)] {
        assert!(places.piece_mut(first, id).is_none(), "{id} at {first}");
    }
    let from = |first| places.pieces_from(first).map(|p| p.desc.id).collect::<Vec<_>>();
    assert_eq!((from(0), from(11), from(15), from(31)), (vec![1, 2, 3], vec![2, 3], vec![2, 3], vec![]));
}

/// One by one: nothing beside them is copied.
#[test]
fn what_is_carried_takes_the_place_of_what_it_was() {
    let mut places = Places::default();
    places.push(10, (0..1000).map(|k| Loc::new(k, 7)), CHUNK);
    let lie_at = places.spans().first().expect("one").locs().as_ptr();
    for k in (0..1000).step_by(2) {
        places.set_journal(10 + k, [Loc::new(5000 + k, 9), Loc::new(6000 + k, 8)].into_iter(), CHUNK);
        assert!(places.spans().len() == 1 && places.spans().first().expect("one").locs().as_ptr() == lie_at);
    }
    assert_eq!((places.loc(10), places.loc(1009)), (Some(Loc::new(5000, 9)), Some(Loc::new(6998, 8))));
    assert_eq!(places.weight(), 500 * (weight(9, CHUNK) + weight(8, CHUNK)));
    assert_eq!(places.journal_bytes(), 1000 * JOURNAL_OVERHEAD + 500 * 17);
}

#[test]
fn few_pieces_keep_no_memory_of_a_longer_time() {
    for behind in [false, true] {
        let mut places = Places::default();
        (1..=10_000).for_each(|i| assert!(places.set_chain(piece(i, i, 1), CHUNK)));
        if behind {
            places.cut_from(4, CHUNK, &mut Vec::new());
        } else {
            places.drop_below(9998, CHUNK, &mut Vec::new());
        }
        assert!(places.chain().len() == 3 && places.chain().capacity() < 100, "{}", places.chain().capacity());
    }
}

/// In any order, as a log may name them, and with gaps between them: moved for each, these would not come to an end.
#[test]
fn spans_come_to_an_end_in_whatever_order_they_are_named() {
    const N: u64 = 400_000;
    let descending = (1..=N).rev();
    let from_both_ends = (1..=N / 2).flat_map(|i| [i, N + 1 - i]);
    let mut places = [Places::default(), Places::default()];
    let [down, inwards] = &mut places;
    descending.for_each(|i| down.set_journal(2 * i, [Loc::new(i, 7)].into_iter(), CHUNK));
    from_both_ends.for_each(|i| inwards.set_journal(2 * i, [Loc::new(i, 7)].into_iter(), CHUNK));
    for places in &mut places {
        assert_eq!(places.spans().len() as u64, N);
        // And what fills the gaps joins them.
        for i in (1..N).rev() {
            places.set_journal(2 * i + 1, [Loc::new(i, 7)].into_iter(), CHUNK);
        }
        let one = places.spans().first().expect("one");
        assert_eq!((places.spans().len(), one.first(), one.last()), (1, 2, 2 * N));
    }
}

/// The same: a log names the pieces last that were carried last, before and among the others.
#[test]
fn pieces_come_to_an_end_in_whatever_order_they_are_named() {
    const N: u64 = 400_000;
    let mut places = Places::default();
    for i in (1..=N / 2).flat_map(|i| [i, N + 1 - i]) {
        assert!(places.replay_chain(piece(i, 2 * i, 1), CHUNK));
    }
    // And go, from the midst on.
    for i in (0..N / 4).flat_map(|i| [N / 2 - i, N / 2 + 1 + i]) {
        places.forget_chain(2 * i, 2 * i);
    }
    places.settle();
    let firsts = places.chain().iter().map(|p| p.desc.first / 2);
    assert!(firsts.eq((1..=N / 4).chain(3 * N / 4 + 1..=N)), "{}", places.chain().len());
}

/// Of very many entries one is moved into a piece, and one more; or one is parted from the others and comes back, again and again.
#[test]
fn parting_a_span_moves_little_wherever_that_is() {
    const N: u64 = 1_000_000;
    let spans = || {
        let mut places = Places::default();
        places.push(1, (1..=N).map(|k| Loc::new(k, 7)), CHUNK);
        places
    };
    let (mut parted, mut met) = (spans(), spans());
    for i in (2..N).step_by(2) {
        parted.forget_journal(i, i, CHUNK);
    }
    assert_eq!(
        (parted.spans().len() as u64, parted.loc(2), parted.loc(N - 1)),
        (N / 2, None, Some(Loc::new(N - 1, 7)))
    );
    for k in 0..N / 4 {
        met.forget_journal(N / 2, N / 2, CHUNK);
        met.replay_journal(N / 2, [Loc::new(2 * N + k, 7)].into_iter(), CHUNK);
    }
    met.settle();
    assert_eq!(met.spans().len(), 1, "in the end they are one: each more would be charged");
    assert!((1..=N).all(|i| met.loc(i).is_some_and(|loc| (loc == Loc::new(i, 7)) != (i == N / 2))));
    assert_eq!((met.holes(1, N), met.journal_bytes()), (vec![], N * journal_bytes(7)));
}

/// Whether they lie in a queue or in a tree, at any time.
#[test]
fn pieces_that_are_named_in_any_order_are_as_those_in_a_queue() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut replayed, mut queued) = (Places::default(), Places::default());
        let (mut freed, mut also) = (Vec::new(), Vec::new());
        for id in 1..3000 {
            let i = rng.random_range(1..5000);
            match rng.random_range(0..100) {
                0 => {
                    replayed.cut_from(5500 - i / 5, CHUNK, &mut freed);
                    queued.cut_from(5500 - i / 5, CHUNK, &mut also);
                }
                1 => {
                    replayed.drop_below(i / 8, CHUNK, &mut freed);
                    queued.drop_below(i / 8, CHUNK, &mut also);
                }
                2..5 => {
                    replayed.forget_chain(i, i + 9);
                    queued.forget_chain(i, i + 9);
                    queued.settle();
                }
                5 => replayed.settle(),
                6 => {
                    let again = queued.chain().get(i as usize % queued.chain().len().max(1)).cloned();
                    for mut again in again.into_iter() {
                        again.meta_seq = id;
                        assert!(replayed.replay_chain(again.clone(), CHUNK) && queued.set_chain(again, CHUNK));
                    }
                }
                _ => {
                    let new = piece(id, i, rng.random_range(1..4));
                    assert_eq!(replayed.replay_chain(new.clone(), CHUNK), queued.set_chain(new, CHUNK), "{seed} {id}");
                }
            }
        }
        replayed.settle();
        let told = |places: &Places| {
            let of = |p: &ChainPiece| (p.desc.id, p.desc.first, p.desc.count, p.meta_seq);
            places.chain().iter().map(of).collect::<Vec<_>>()
        };
        assert!(told(&replayed).len() > 300, "{}", told(&replayed).len());
        assert_eq!((told(&replayed), freed), (told(&queued), also), "seed {seed}");
    }
}

#[test]
fn what_was_moved_in_the_journal_is_in_no_piece() {
    let held = |lo, hi| {
        let mut places = Places::default();
        for (id, first) in [(1, 10), (2, 15), (3, 20), (4, 25)] {
            assert!(places.set_chain(piece(id, first, 5), CHUNK));
        }
        places.forget_chain(lo, hi);
        places.chain().iter().map(|p| (p.desc.first, p.desc.last())).collect::<Vec<_>>()
    };
    assert_eq!(held(1, 9), [(10, 14), (15, 19), (20, 24), (25, 29)]);
    assert_eq!(held(30, 40), [(10, 14), (15, 19), (20, 24), (25, 29)]);
    assert_eq!(held(12, 12), [(10, 11), (15, 19), (20, 24), (25, 29)]);
    assert_eq!(held(14, 20), [(10, 13), (25, 29)]);
    assert_eq!(held(15, 24), [(10, 14), (25, 29)]);
    assert_eq!(held(1, u64::MAX), []);
    Places::default().forget_chain(1, u64::MAX);
}

#[test]
fn an_overlapping_piece_is_refused() {
    let mut places = Places::default();
    assert!(places.set_chain(piece(1, 10, 5), CHUNK));
    assert!(!places.set_chain(piece(2, 12, 5), CHUNK));
    assert!(!places.set_chain(piece(3, 8, 3), CHUNK));
    assert!(places.set_chain(piece(4, 15, 5), CHUNK));
    assert!(places.set_chain(piece(1, 10, 5), CHUNK), "the same piece named again is no overlap");
}
