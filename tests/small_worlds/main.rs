//! Every small world: each workload of up to three steps over two replicas, cut at every write and every sync of it, with every
//! subset of the sectors that no sync had covered.
//!
//! Random runs find what is likely; this finds what is small. By default all workloads of two steps run in the default placement, and a
//! share of all others, drawn from `STRANDLOG_SEED`. `STRANDLOG_WORLDS=all` runs every one, and `STRANDLOG_WORLDS=3/40` the third of forty
//! parts that together are all of them: for many machines, or many evenings.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod steps;
mod subsets;
mod world;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use steps::{Step, alphabet};
use strandlog::Placement;
use support::{PLACEMENTS, env, for_each, tally};
use world::{Base, Outcome, STARTS, run};

/// How much is explored.
struct Scope {
    /// Runs this part of everything, of so many; `None`: what a plain run can afford.
    part: Option<(u64, u64)>,
    seed: u64,
    /// One in so many workloads of three steps is run.
    share: u64,
    /// Up to this many combinations of sectors, all are tried.
    bound: usize,
    workloads: AtomicU64,
    cuts: AtomicU64,
    images: AtomicU64,
}

impl Scope {
    fn from_env() -> Self {
        let part = std::env::var("STRANDLOG_WORLDS").ok().map(|worlds| match worlds.split_once('/') {
            None if worlds == "all" => (1, 1),
            Some((part, of)) => (part.parse().expect("a part"), of.parse().expect("of so many")),
            None => panic!("STRANDLOG_WORLDS={worlds} is neither `all` nor a part, like 3/40"),
        });
        let (share, bound) = if part.is_some() { (1, 64) } else { (60, 32) };
        let count = || AtomicU64::new(0);
        Self { part, seed: env("STRANDLOG_SEED", 1), share, bound, workloads: count(), cuts: count(), images: count() }
    }

    fn chosen(&self, base: &Base, steps: &[Step]) -> bool {
        if let Some((part, of)) = self.part {
            return steps::hash(steps, 0) % of == part % of;
        }
        // The other placements differ little from the default one: of their shorter workloads, too, only a share is run.
        let share = match (base.placement, steps.len()) {
            (_, 1) | (Placement::Auto, 2) => 1,
            (Placement::Auto, _) => self.share,
            (_, 2) => 6,
            _ => 2 * self.share,
        };
        steps::hash(steps, self.seed).is_multiple_of(share)
    }

    /// Runs the workload, and every one that continues it.
    fn explore(&self, base: &Base, steps: &mut Vec<Step>) {
        // The events of the earlier steps were cut when those were the last.
        let Outcome::Ran(cuts) = run(base, steps) else { return };
        let chosen = self.chosen(base, steps);
        if chosen && !cuts.is_empty() {
            self.workloads.fetch_add(1, Relaxed);
        }
        for cut in cuts.iter().filter(|_| chosen) {
            self.cuts.fetch_add(1, Relaxed);
            self.images.fetch_add(check::every_image(base, cut, steps, self.bound), Relaxed);
        }
        if steps.len() == 3 {
            return;
        }
        for step in alphabet() {
            steps.push(step);
            // Every part walks the shorter workloads, to reach its own.
            if self.chosen(base, steps) || (self.part.is_some() && steps.len() < 3) {
                self.explore(base, steps);
            }
            steps.pop();
        }
    }
}

#[test]
fn every_cut_of_every_small_world_leaves_a_prefix_that_goes_on_working() {
    let began = Instant::now();
    let scope = Scope::from_env();
    let bases: Vec<Base> = PLACEMENTS.into_iter().flat_map(|p| STARTS.map(|s| Base::build(s, p))).collect();
    let jobs: Vec<(usize, Step)> = (0..bases.len()).flat_map(|b| alphabet().map(move |step| (b, step))).collect();
    for_each(&jobs, |(base, first)| scope.explore(&bases[base], &mut vec![first]));
    let count = |n: &AtomicU64| n.load(Relaxed);
    let (workloads, cuts, images) = (count(&scope.workloads), count(&scope.cuts), count(&scope.images));
    println!("small worlds: {workloads} workloads, {cuts} cuts, {images} images, {:.1?}", began.elapsed());
    tally(&[("workloads", workloads), ("cuts", cuts), ("images", images)]);
    let least = scope.part.map_or(2000, |(_, of)| 100_000 / of);
    assert!(workloads > least && cuts > workloads && images > 10 * cuts, "that was not every small world");
}

/// Without this a step that is always refused would go unnoticed.
#[test]
fn every_step_is_taken_by_some_workload() {
    let worn = Base::build(world::Start::Worn, Placement::Auto);
    let taken: HashSet<Step> = alphabet().filter(|&step| matches!(run(&worn, &[step]), Outcome::Ran(_))).collect();
    assert_eq!(taken.len(), alphabet().count(), "{taken:?}");
}
