//! Batches: what counts, what contradicts itself, what a removal ends.

use super::*;

fn of_a_removal() -> u64 {
    Takes::of(What::Remove, &[]).at_most
}

/// Neither its memory nor its bytes count against what stays.
#[test]
fn nothing_of_a_run_that_is_refused_stays() {
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, vec![1; 100])]);
    let (bytes, arena) = (batch.bytes(), batch.arena.len());
    batch.append(2, &[(1, 1, vec![2; 100]), (2, 1, vec![2; BULKY]), (4, 1, vec![2; 100])]);
    batch.append(3, &[(0, 1, vec![3; BULKY])]);
    assert!(batch.check().is_err());
    assert_eq!((batch.bytes(), batch.arena.len(), batch.bulk.len(), batch.metas.len()), (bytes, arena, 0, 1));
    batch.withdraw(2).withdraw(3);
    assert!(batch.check().is_ok());
}

#[test]
fn what_a_removal_ended_does_not_count() {
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, vec![1; 100]), (2, 1, vec![1; BULKY])]).put(2, b"key", b"value");
    let (bytes, charged) = (batch.bytes(), batch.log_bytes());
    batch.put(3, b"k", b"v").delete(3, b"k").append(3, &[(1, 1, vec![3; 7]), (2, 1, vec![3; BULKY])]).remove(3);
    assert_eq!(batch.bytes(), bytes);
    assert_eq!(batch.log_bytes(), charged + of_a_removal());
    batch.remove(4).remove(3).remove(1);
    assert_eq!((batch.bytes(), batch.ops.len()), (8, 4));
    batch.withdraw(1).append(1, &[(1, 1, b"a")]).remove(1);
    assert_eq!((batch.bytes(), batch.ops.len()), (8, 4));
    batch.clear();
    assert_eq!((batch.bytes(), batch.log_bytes()), (0, 0));
}

/// However often replicas are written and removed again: nobody counts those bytes, so nobody would know when to submit it.
#[test]
fn a_batch_does_not_grow_by_what_removals_ended() {
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, vec![1; 30_000]), (2, 1, vec![1; BULKY])]).put(1, b"key", b"value");
    for round in 0..1000 {
        for replica in 2..5 {
            batch.append(replica, &[(1, 1, vec![2; 3000]), (2, 1, vec![2; BULKY])]).put(replica, b"k", &[3; 100]);
        }
        (2..5).for_each(|replica| _ = batch.remove(replica));
        let held = batch.arena.len() as u64 + batch.bulk_bytes;
        assert!(held < 4 * (KEPT_BYTES + batch.bytes()), "round {round}: {held}");
    }
    assert_eq!((batch.ops.len(), batch.value(1, b"key")), (5, Some(&b"value"[..])));
    let payloads: Vec<_> = batch.metas.iter().filter(|meta| batch.payload(meta)[0] == 1).collect();
    assert_eq!(payloads.iter().map(|meta| meta.len as usize).collect::<Vec<_>>(), [30_000, BULKY]);
    // It knows still whom it names.
    batch.remove(1).remove(4);
    assert_eq!((batch.ops.len(), batch.bytes()), (4, 0));
}

/// What is said of each takes room, too.
#[test]
fn a_batch_does_not_grow_by_empty_entries_that_removals_ended() {
    let mut batch = Batch::new();
    for _ in 0..50_000 {
        batch.append(1, &[(1_u64, 1_u64, Vec::<u8>::new()), (2, 1, Vec::new())]).remove(1);
    }
    let most = 2 * KEPT_BYTES as usize / size_of::<Meta>();
    assert!(batch.metas.len() < most, "{} entries are kept of none", batch.metas.len());
    batch.clear();
    assert_eq!(batch.ended_metas, 0);
}

/// Where each is written and removed in its turn, none is looked for among all others, or it would not end.
#[test]
fn a_batch_ends_what_was_asked_of_hundreds_of_thousands() {
    let mut batch = Batch::new();
    for replica in 0..300_000_u64 {
        batch.put(replica, b"k", b"v").remove(replica);
    }
    assert!(batch.check().is_ok());
    assert_eq!((batch.ops.len(), batch.bytes()), (300_000, 0));
    // Also of one that was named long ago, and between others.
    batch.put(7, b"k", b"v").put(8, b"k", b"v").delete(7, b"k").put(9, b"k", b"v").remove(7);
    assert!(batch.check().is_ok());
    let asked: Vec<u64> = batch.ops.iter().skip(299_999).map(|op| op.replica).collect();
    assert_eq!((asked, batch.ops.iter().filter(|op| op.replica == 7).count()), (vec![8, 9, 7], 1));
}

/// As they were put, the oldest first: looked for from the newest on, or all others moved for each, it would not end.
#[test]
fn a_batch_takes_back_hundreds_of_thousands_in_the_order_in_which_they_were_put() {
    let fill =
        |batch: &mut Batch| (0..300_000).for_each(|replica| _ = batch.put(replica, b"k", b"v").delete(replica, b"l"));
    let mut batch = Batch::new();
    fill(&mut batch);
    (0..300_000).for_each(|replica| _ = batch.withdraw(replica));
    assert!(batch.is_empty() && batch.check().is_ok());
    assert_eq!((batch.ops.len(), batch.bytes(), batch.log_bytes()), (0, 0, 0));
    fill(&mut batch);
    (0..300_000).for_each(|replica| _ = batch.remove(replica));
    assert_eq!(batch.log_bytes(), 300_000 * of_a_removal());
    assert!(batch.check().is_ok() && batch.ops.iter().all(|op| matches!(op.what, What::Remove)));
    assert!(batch.ops.iter().map(|op| op.replica).eq(0..300_000));
}

/// Long or short, and whenever what was ended goes from among the rest: it is the batch that was never asked for it.
#[test]
fn what_was_taken_back_was_never_asked() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// What is asked of which replica, in its order.
    fn ask(batch: &mut Batch, asked: &[(u64, u8)]) {
        for &(replica, what) in asked {
            match what {
                0 => batch.remove(replica),
                1 => batch.append(replica, &[(1, 1, vec![what; 40]), (2, 1, vec![what; BULKY])]),
                2 => batch.delete(replica, b"k"),
                _ => batch.put(replica, b"k", &[what]),
            };
        }
    }

    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut batch, mut left) = (Batch::new(), Vec::new());
        let replicas = rng.random_range(1..80);
        for _ in 0..rng.random_range(1..8 * SHORT) {
            let replica = rng.random_range(0..replicas);
            match rng.random_range(0..6) {
                0 => {
                    left.retain(|&(of, _)| of != replica);
                    batch.withdraw(replica);
                }
                what => {
                    // A removal that it asks for ends what came before, too.
                    let what = (what - 1) * rng.random_range(1..9);
                    if what == 0 {
                        left.retain(|&(of, _)| of != replica);
                    }
                    left.push((replica, what));
                    ask(&mut batch, &[(replica, what)]);
                }
            }
            let mut wanted = Batch::new();
            ask(&mut wanted, &left);
            let told = |batch: &Batch| (batch.bytes(), batch.log_bytes(), batch.is_empty());
            assert_eq!(told(&batch), told(&wanted), "seed {seed}");
            let values =
                |batch: &Batch| (0..replicas).map(|of| batch.value(of, b"k").map(<[u8]>::to_vec)).collect::<Vec<_>>();
            assert_eq!(values(&batch), values(&wanted), "seed {seed}");
            if rng.random_range(0..40) == 0 {
                let (a, b) = (batch.split_off(|of| of % 2 == 0), wanted.split_off(|of| of % 2 == 0));
                left.retain(|&(of, _)| of % 2 != 0);
                assert_eq!((told(&a), told(&batch)), (told(&b), told(&wanted)), "seed {seed}");
            }
            if rng.random_range(0..20) == 0 {
                assert!(batch.check().is_ok());
                let asked = |batch: &Batch| {
                    batch.ops.iter().map(|op| (op.replica, std::mem::discriminant(&op.what))).collect::<Vec<_>>()
                };
                assert_eq!(asked(&batch), asked(&wanted), "seed {seed}");
            }
            if rng.random_range(0..100) == 0 {
                batch.clear();
                left.clear();
            }
        }
    }
}

/// Built anew for each, out of tens of megabytes, it would not end.
#[test]
fn a_batch_takes_back_what_was_asked_of_thousands_one_after_the_other() {
    const ALL: u64 = 15_000;
    let mut batch = Batch::new();
    for replica in 0..ALL {
        batch.append(replica, &[(1, 1, [replica as u8; 2000])]).put(replica, b"k", b"v");
    }
    let one = batch.log_bytes() / ALL;
    // The newest first, and then some from the oldest on.
    let mut left = ALL;
    for replica in (ALL / 2..ALL).rev().chain(0..500) {
        batch.withdraw(replica).withdraw(replica);
        left -= 1;
        assert_eq!((batch.bytes(), batch.log_bytes()), (left * 2002, left * one));
    }
    let held = batch.arena.len() as u64;
    assert!(held < 3 * batch.bytes(), "{held} bytes are held for {}", batch.bytes());
    assert!(batch.check().is_ok());
    assert!(batch.ops.iter().all(|op| (500..ALL / 2).contains(&op.replica)) && batch.ops.len() as u64 == 2 * left);
    assert!(batch.metas.iter().all(|meta| batch.payload(meta).len() == 2000) && batch.value(600, b"k").is_some());
    // It is asked again.
    batch.put(0, b"k", b"w").put(1, b"k", b"w").withdraw(1).withdraw(600);
    assert_eq!([0, 1, 600].map(|replica| batch.value(replica, b"k").is_some()), [true, false, false]);
}

#[test]
fn a_batch_that_skips_an_index_is_refused_when_checked() {
    let mut batch = Batch::new();
    batch.append(1, &[(1, 1, b"a"), (3, 1, b"b")]);
    assert!(matches!(batch.check(), Err(Error::Contradiction { replica: 1, .. })));
    batch.clear();
    assert!(batch.check().is_ok());
    batch.append(1, &[(0, 1, b"a")]);
    assert!(batch.check().is_err());
}

/// What was refused of another is in no batch, so it must stay refused.
#[test]
fn a_contradiction_goes_with_its_replica_and_leaves_the_others() {
    let mut batch = Batch::new();
    batch.append(1, &[(0, 1, b"a")]).append(2, &[(0, 1, b"b")]).lazy();
    batch.withdraw(1);
    assert!(matches!(batch.check(), Err(Error::Contradiction { replica: 2, .. })), "{:?}", batch.check());
    batch.withdraw(2);
    assert!(batch.check().is_ok() && batch.is_empty() && batch.lazy);
}

/// Each half has all of its replicas and nothing of the others, in its order, and counts no more than that.
#[test]
fn a_batch_that_is_split_is_two() {
    let fill = |batch: &mut Batch, replicas: &[u64]| {
        for &replica in replicas {
            batch.append(replica, &[(1, 1, vec![replica as u8; 100]), (2, 1, vec![replica as u8; BULKY])]);
            batch.put(replica, b"k", &[replica as u8]).truncate_prefix(replica, 2).delete(replica, b"other");
        }
        replicas.iter().for_each(|&replica| _ = batch.put(replica, b"k", b"last"));
    };
    let [mut all, mut odd, mut even] = [(); 3].map(|()| Batch::new());
    fill(&mut all, &[1, 2, 3, 4]);
    fill(&mut odd, &[1, 3]);
    fill(&mut even, &[2, 4]);
    all.append(3, &[(0, 1, b"a")]).lazy();
    let mut split = all.split_off(|replica| replica % 2 == 1);
    assert!(matches!(split.check(), Err(Error::Contradiction { replica: 3, .. })) && all.check().is_ok());
    assert!(split.lazy && all.lazy);
    for (got, wanted) in [(&split, &odd), (&all, &even)] {
        assert_eq!(
            (got.bytes(), got.log_bytes(), got.ops.len()),
            (wanted.bytes(), wanted.log_bytes(), wanted.ops.len())
        );
        let payloads = |batch: &Batch| batch.metas.iter().map(|meta| batch.payload(meta).to_vec()).collect::<Vec<_>>();
        assert!(payloads(got) == payloads(wanted));
        assert_eq!([1, 2, 3, 4].map(|of| got.value(of, b"k")), [1, 2, 3, 4].map(|of| wanted.value(of, b"k")));
    }
    assert!(all.split_off(|_| false).is_empty() && all.ops.len() == even.ops.len());
}

#[test]
fn the_value_that_a_batch_leaves_is_the_last() {
    let mut batch = Batch::new();
    batch.put(1, b"k", b"1").put(1, b"other", b"2").put(2, b"k", b"3");
    assert_eq!((batch.value(1, b"k"), batch.value(3, b"k"), batch.value(2, b"other")), (Some(&b"1"[..]), None, None));
    batch.put(1, b"k", b"4").install_snapshot(1, 5, 1);
    assert_eq!(batch.value(1, b"k"), Some(&b"4"[..]), "a snapshot leaves keyed state");
    batch.delete(1, b"k");
    assert_eq!((batch.value(1, b"k"), batch.value(1, b"other")), (None, Some(&b"2"[..])));
    batch.remove(1).put(1, b"k", b"5");
    assert_eq!((batch.value(1, b"k"), batch.value(1, b"other")), (Some(&b"5"[..]), None));
}
