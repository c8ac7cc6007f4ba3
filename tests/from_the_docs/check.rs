//! Reads what an open log says, in every way there is, and holds it against the model.

use rand::Rng;
use rand::rngs::StdRng;
use std::ops::ControlFlow;
use strandlog::{Bytes, Error, Wal};

use super::model::{Rep, World};

fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Everything that the log holds.
pub fn read(wal: &Wal) -> Result<World, Error> {
    let mut world = World::default();
    for id in wal.replicas() {
        let r = wal.replica(id);
        assert!(r.exists() && r.id() == id);
        let (first, last) = r.bounds();
        assert_eq!((first, last), (r.first_index(), r.last_index()));
        let mut rep = Rep { before: (first - 1, r.term(first - 1)?), ..Rep::default() };
        let mut next = first;
        while next <= last {
            let some = r.entries(next..last + 1, 1 << 20)?;
            assert!(!some.is_empty(), "at least one");
            for entry in some {
                assert_eq!(entry.index, next);
                rep.entries.push((entry.term, own(&entry.data)));
                next += 1;
            }
        }
        for key in r.keys() {
            let value = r.get(&key)?.expect("a key that is listed is there");
            rep.keys.insert(key.to_vec(), own(&value));
        }
        rep.reported = r.durable_applied()?;
        assert_eq!(r.reapply_from()?, rep.reapply_from(), "replica {id}: {rep:?}");
        world.0.insert(id, rep);
    }
    Ok(world)
}

/// Reads one replica in the ways that `read` does not take.
pub fn one(wal: &Wal, world: &World, id: u64, rng: &mut StdRng) -> Result<(), Error> {
    let r = wal.replica(id);
    let Some(rep) = world.0.get(&id) else {
        assert!(!r.exists() && r.bounds() == (1, 0) && r.keys().is_empty());
        assert!(matches!(r.term(rng.random_range(1..3)), Err(Error::UnknownReplica { replica }) if replica == id));
        assert!(matches!(r.entry(1), Err(Error::UnknownReplica { replica }) if replica == id));
        assert_eq!(r.get(b"vote")?, None);
        assert_eq!(r.durable_applied()?, None);
        return Ok(());
    };
    let (first, last) = (rep.first(), rep.last());
    assert_eq!(r.bounds(), (first, last), "replica {id}");
    let index = rng.random_range(first.saturating_sub(3)..=last + 3);
    match r.term(index) {
        Ok(term) => assert!(index + 1 >= first && index <= last && term == rep.term(index), "{id}: {index}: {term}"),
        Err(Error::Compacted { replica, index: i, first_index }) => {
            assert!((replica, i, first_index) == (id, index, first) && index + 1 < first);
        }
        Err(Error::OutOfRange { replica, index: i, last_index }) => {
            assert!((replica, i, last_index) == (id, index, last) && index > last);
        }
        Err(other) => return Err(other),
    }
    match r.entry(index) {
        Ok(e) => {
            let (term, data) = &rep.entries[(index - first) as usize];
            assert!((e.index, e.term, &e.data) == (index, *term, data), "{id}: {index}");
        }
        Err(Error::Compacted { .. }) => assert!(index < first),
        Err(Error::OutOfRange { .. }) => assert!(index > last),
        Err(other) => return Err(other),
    }
    let (from, to) = (rng.random_range(first..=last + 1), rng.random_range(first..=last + 1));
    let limit = [0, 100, 5000, 1 << 20][rng.random_range(0..4)];
    let got = r.entries(from..to, limit)?;
    assert_eq!(got.is_empty(), from >= to, "at least one: {from}..{to}");
    let mut bytes = 0;
    for (n, e) in got.iter().enumerate() {
        let (term, data) = &rep.entries[(from - first) as usize + n];
        assert!((e.index, e.term, &e.data) == (from + n as u64, *term, data), "{id}: {from}..{to}: {n}");
        assert!(n == 0 || data.is_empty() || bytes + data.len() <= limit, "{from}..{to} of {limit} bytes: {n}");
        bytes += data.len();
    }
    if let Some((_, next)) = rep.entries.get((from - first) as usize + got.len())
        && from + (got.len() as u64) < to
    {
        // A disk that fails meanwhile ends the reading early, too.
        r.entry(from + got.len() as u64)?;
        assert!(bytes + next.len() > limit, "{id}: {from}..{to} of {limit}: {} of {bytes} bytes", got.len());
    }
    assert!(matches!(r.entries(first..last + 2, limit), Err(Error::OutOfRange { .. })));
    let usage = r.usage();
    assert_eq!(usage.keys, rep.keys.len() as u64, "{id}: {usage:?}");
    let entries: usize = rep.entries.iter().map(|(_, d)| d.len()).sum();
    assert!(usage.journal_bytes + usage.chain_bytes >= entries as u64, "{id}: {usage:?} of {entries}");
    for (key, value) in &rep.keys {
        assert_eq!(r.get(key)?.as_ref(), Some(value), "{id}");
    }
    Ok(())
}

/// Checks the figures that are promised to add up.
pub fn figures(wal: &Wal, world: &World, when: &str) {
    let s = wal.stats();
    assert_eq!(wal.replicas(), world.0.keys().copied().collect::<Vec<_>>(), "{when}");
    assert_eq!(s.replicas, world.0.len() as u64, "{when}");
    let held = world.0.values().filter(|rep| rep.held.is_some()).count();
    assert_eq!(s.held_truncations, held as u64, "{when}: {world:?}");
    assert_eq!(s.free_chunks + s.used_chunks + s.pinned_chunks, s.chunks, "{when}: {s:?}");
    assert!(s.reserved_chunks <= s.free_chunks && s.reserved_for_values <= s.reserved_chunks, "{when}: {s:?}");
    assert!(s.carried_class_bytes <= s.carried_class_limit, "{when}: {s:?}");
    assert!(s.free_segments <= s.journal_segments && s.journal_segments <= s.journal_cap_segments, "{when}: {s:?}");
    assert_eq!((s.lost_frames, s.unnamed_losses, s.damaged_entries), (0, 0, 0), "{when}: {s:?}");
    assert_eq!(s.capacity, wal.capacity(), "{when}");
    assert!(s.durable_lsn <= wal.durable_lsn().get(), "{when}");
    assert_eq!(wal.damage(), [], "{when}");
    let runs: u64 = wal.space_map().iter().map(|r| r.chunks).sum();
    let segments = (s.capacity - (64 << 10)) / s.segment_size;
    assert_eq!(runs, segments * (s.segment_size / s.chunk_size), "{when}: {s:?}");
    assert!(s.chunks + s.journal_segments * (s.segment_size / s.chunk_size) <= runs, "{when}: {s:?}");
    let of_chains = wal.layout().into_iter().filter_map(|s| s.replica);
    for id in of_chains {
        assert!(world.0.contains_key(&id), "{when}: a chain of {id}, which does not exist");
    }
}

/// Checks that a verification and a scrub find what the model holds, and nothing else but the replica `busy`, which is being written.
pub fn sound(wal: &Wal, world: &World, busy: Option<u64>, scrub: bool, when: &str) -> Result<(), Error> {
    let entries: u64 = world.0.values().map(|rep| rep.entries.len() as u64).sum();
    let bytes: u64 = world.0.values().flat_map(|rep| &rep.entries).map(|(_, d)| d.len() as u64).sum();
    let replicas = world.0.len() as u64;
    let report = wal.verify(|_| ())?;
    assert!(report.is_clean(), "{when}: {report:?}");
    if busy.is_none() {
        assert_eq!((report.replicas, report.entries, report.bytes), (replicas, entries, bytes), "{when}");
    }
    if scrub {
        let (mut told, mut sum) = (Vec::new(), (0, 0));
        let journal = wal.scrub(u64::MAX, |s| {
            assert!(s.damage.is_empty() && s.structure.is_empty(), "{when}: {s:?}");
            if Some(s.replica) != busy {
                told.push(s.replica);
                sum = (sum.0 + s.entries, sum.1 + s.bytes);
            }
            ControlFlow::Continue(())
        })?;
        told.sort_unstable();
        assert_eq!(told, world.0.keys().copied().collect::<Vec<_>>(), "{when}");
        assert_eq!(sum, (entries, bytes), "{when}");
        assert_eq!((journal.rotten_frames, journal.bad_superblocks), (0, 0), "{when}");
    }
    Ok(())
}
