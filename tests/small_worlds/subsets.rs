//! Every subset of what a cut leaves in doubt, up to a bound.

use strandlog::disk::sim::{Choice, SimDisk};

/// Beyond the bound, so many combinations are drawn.
const DRAWN: u64 = 8;
/// Cuts with torn sectors and garbage, drawn for each cut.
const SPOILT: u64 = 2;

/// Hands out one image after the other, each with a description. If there are no more than `bound`: all combinations; else none, all, each
/// sector alone lost, each alone kept, and some that are drawn. Besides, cuts with torn sectors. Returns how many images.
pub fn each(cut: &SimDisk, seed: u64, bound: usize, look: &mut dyn FnMut(SimDisk, &dyn std::fmt::Debug)) -> u64 {
    let outcomes = cut.outcomes();
    let mut images = 0;
    let mut picked = |picks: &[usize]| {
        images += 1;
        let kept: Vec<(u64, usize)> = outcomes.iter().map(|o| o.0).zip(picks.iter().copied()).collect();
        look(image(cut, &outcomes, picks), &format_args!("sectors and versions kept: {kept:?}"));
    };
    let newest: Vec<usize> = outcomes.iter().map(|(_, choices)| choices.len() - 1).collect();
    let combinations = outcomes.iter().try_fold(1usize, |n, (_, choices)| n.checked_mul(choices.len()));
    if combinations.is_some_and(|n| n <= bound) {
        for mut n in 0..combinations.unwrap_or(0) {
            let picks: Vec<usize> = outcomes
                .iter()
                .map(|(_, choices)| {
                    let pick = n % choices.len();
                    n /= choices.len();
                    pick
                })
                .collect();
            picked(&picks);
        }
    } else {
        let oldest = vec![0; newest.len()];
        picked(&oldest);
        picked(&newest);
        for i in 0..newest.len() {
            let (mut missing, mut present) = (newest.clone(), oldest.clone());
            (missing[i], present[i]) = (0, newest[i]);
            picked(&missing);
            picked(&present);
        }
        for n in 0..DRAWN {
            let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n;
            let picks: Vec<usize> = outcomes
                .iter()
                .map(|(_, choices)| {
                    x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (x >> 33) as usize % choices.len()
                })
                .collect();
            picked(&picks);
        }
    }
    if !outcomes.is_empty() {
        for n in 0..SPOILT {
            images += 1;
            let seed = seed.wrapping_mul(31).wrapping_add(n);
            look(cut.crash_seeded(seed), &format_args!("crash_seeded({seed})"));
        }
    }
    images
}

fn image(cut: &SimDisk, outcomes: &[(u64, Vec<Choice>)], picks: &[usize]) -> SimDisk {
    // Both go up by sector, so one pass finds each.
    let mut next = outcomes.iter().zip(picks).peekable();
    cut.crash(&mut |sector, _| match next.next_if(|((at, _), _)| *at == sector) {
        Some(((_, choices), &pick)) => choices[pick],
        // The same in every case.
        None => Choice::Durable,
    })
}
