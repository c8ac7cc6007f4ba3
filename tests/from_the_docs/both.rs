//! Reads what the two logs of a migration say together.

use strandlog::Bytes;
use strandlog::migrate::{DualWrite, MigrateError, OldLog};

use super::model::{Rep, World};

/// The keys that [`Steps`](super::steps::Steps) puts, but for those of special lengths.
const KEYS: [&[u8]; 4] = [b"", b"vote", b"conf", b"snapshot"];

/// Entries, the index and term before them, and the keys of these replicas.
pub fn read<O: OldLog>(dual: &mut DualWrite<O>, ids: &[u64]) -> Result<World, MigrateError> {
    let mut world = World::default();
    for &id in ids {
        let Some((first, last)) = dual.bounds(id)? else { continue };
        let mut rep = Rep { before: (first - 1, dual.term(id, first - 1)?), ..Rep::default() };
        while rep.last() < last {
            for entry in dual.entries(id, rep.last() + 1, last)? {
                assert_eq!(entry.index, rep.last() + 1);
                rep.entries.push((entry.term, Bytes::copy_from_slice(&entry.data)));
            }
        }
        for key in KEYS.iter().copied().chain([&[b'k'; 256][..], &[b'x'; 257], b"large"]) {
            if let Some(value) = dual.get(id, key)? {
                rep.keys.insert(key.to_vec(), Bytes::copy_from_slice(&value));
            }
        }
        world.0.insert(id, rep);
    }
    Ok(world)
}
