//! A migration on a simulated disk. Either log fails, or the power; what both say together is what was acknowledged, batch for batch, until
//! every replica has moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use strandlog::Error;
use strandlog::disk::sim::{Fault, SimDisk};
use strandlog::migrate::{DualWrite, MigrateError, Stage};

use super::both::read;
use super::disk::{File, options};
use super::model::{Op, Ops, Rep, World, batch};
use super::steps::Steps;
use super::support::old_log::{Fails, Old};

type Dual = DualWrite<Old>;

/// A world without reports, which only strandlog has, and only for what its copy holds: here contents alone count.
fn contents(world: &World) -> World {
    let plain = |(&id, rep): (&u64, &Rep)| (id, Rep { reported: None, held: None, ..rep.clone() });
    World(world.0.iter().map(plain).collect())
}

/// Which replicas are switched: a batch is atomic over the mirrored ones, and over the switched ones.
fn switched(dual: &Dual, ids: &[u64]) -> BTreeMap<u64, bool> {
    ids.iter().map(|&id| (id, dual.stage(id) == Stage::Switched)).collect()
}

pub fn run(seed: u64, steps_each: u64) -> [u64; 4] {
    let mut rng: StdRng = rand::SeedableRng::seed_from_u64(seed);
    let file = File { capacity: 4 << 20, chunk: 4096, segment: 64 << 10, cap: 2 << 20 };
    let ids: Vec<u64> = (1..=5).collect();
    let mut steps = Steps::new(seed, file.shape(ids.clone(), 0));
    let (old, mut disk, mut world) = (Old::new(), SimDisk::new(file.capacity), World::default());
    let mut counts = [0; 4];
    // A log with a past that strandlog knows nothing of.
    let scratch = Arc::new(SimDisk::new(file.capacity));
    let wal = file.create(options(&mut rng)).background(false).open_disk(scratch).expect("opens");
    let mut before = DualWrite::open(old.clone(), wal).expect("begins");
    for _ in 0..10 {
        let ops = draw(&mut steps, &world);
        before.commit(&mut batch(&ops)).expect("committed");
        world = world.after(&ops).expect("it makes sense");
    }
    let kept = before.into_parts().0.world();
    world.0.retain(|id, _| kept.contains_key(id));
    for life in 1..=8 {
        let label = format!("seed {seed}, life {life}");
        steps.begin_life(life);
        let now = Arc::new(disk.restart());
        let options = file.create(options(&mut rng)).background(false);
        let wal = options.open_disk(Arc::clone(&now) as Arc<_>).unwrap_or_else(|e| panic!("{label}: {e}"));
        let mut dual = DualWrite::open(old.clone(), wal).unwrap_or_else(|e| panic!("{label}: {e}"));
        let mut ended = None;
        let found = read(&mut dual, &ids).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert!(found == world, "{label}: {}", world.difference(&found));
        let cut = rng.random_bool(0.7).then(|| now.events() + rng.random_range(0..3 * steps_each));
        if let Some(at) = cut {
            now.fail_at(at, Fault::Cut);
        }
        for _ in 0..rng.random_range(1..=steps_each) {
            let ops = draw(&mut steps, &world);
            let next = world.after(&ops).expect("it makes sense");
            let kinds = switched(&dual, &ids);
            let fails = [Fails::Never, Fails::Never, Fails::Before, Fails::After, Fails::Later][rng.random_range(0..5)];
            old.fail(if rng.random_ratio(1, 4) { fails } else { Fails::Never });
            let mut filled = batch(&ops);
            let mut outcome = dual.commit(&mut filled);
            let mut tries = 0;
            while let Err(error) = &outcome {
                let full = matches!(error, MigrateError::New(Error::Full(_)) | MigrateError::OldAlone(Error::Full(_)));
                assert!(full || now.is_cut() || matches!(error, MigrateError::Old(_)), "{label}: {error}: {ops:?}");
                if now.is_cut() || full || tries > 3 {
                    break;
                }
                // The batch given again comes to the same.
                counts[0] += 1;
                tries += 1;
                outcome = dual.commit(&mut filled);
            }
            old.fail(Fails::Never);
            match outcome {
                Ok(()) => {
                    assert!(filled.is_empty(), "{label}");
                    world = contents(&next);
                    counts[1] += 1;
                }
                Err(_) => {
                    // The batch is there whole or not at all, for the replicas of each kind.
                    let again = Arc::new(now.crash_seeded(rng.random()));
                    let wal = file.create(super::disk::options(&mut rng)).background(false);
                    let wal = wal.open_disk(Arc::clone(&again) as Arc<_>).unwrap_or_else(|e| panic!("{label}: {e}"));
                    let mut dual = DualWrite::open(old.clone(), wal).unwrap_or_else(|e| panic!("{label}: {e}"));
                    let found = read(&mut dual, &ids).unwrap_or_else(|e| panic!("{label}: {e}"));
                    let next = contents(&next);
                    for kind in [false, true] {
                        let of = |w: &World| w.of(|id| kinds[&id] == kind);
                        let is = of(&found);
                        let differ = || format!("{}\n--{}", of(&world).difference(&is), of(&next).difference(&is));
                        let whole = is == of(&world) || is == of(&next);
                        assert!(whole, "{label}: switched {kind}: {ops:?}: {}", differ());
                    }
                    world = found;
                    drop(dual);
                    ended = Some(again.crash_lost_all());
                    break;
                }
            }
            if rng.random_ratio(1, 5) && !now.is_cut() {
                let found = read(&mut dual, &ids).unwrap_or_else(|e| panic!("{label}: {e}"));
                assert!(found == world, "{label}: {ops:?} {}", world.difference(&found));
                assert_eq!(dual.take_differences(), [], "{label}");
                for id in &ids {
                    if dual.stage(*id) == Stage::Mirrored {
                        assert_eq!(dual.differences_of(*id).expect("readable"), [], "{label}: {ops:?}");
                    }
                }
            }
        }
        counts[2] += switched(&dual, &ids).values().filter(|s| **s).count() as u64;
        counts[3] += u64::from(now.is_cut());
        let (_, wal) = dual.into_parts();
        drop(wal);
        disk = match ended {
            Some(disk) => disk,
            None if now.is_cut() => now.crash_seeded(rng.random()),
            None => now.crash_lost_all(),
        };
    }
    counts
}

/// A batch without reports: truncations that wait for one are another test's.
fn draw(steps: &mut Steps, world: &World) -> Ops {
    loop {
        let mut ops = steps.draw(world);
        ops.retain(|(_, op)| !matches!(op, Op::Report(_)));
        if !ops.is_empty() && world.after(&ops).is_ok() {
            return ops;
        }
    }
}
