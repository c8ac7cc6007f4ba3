//! Keyed state beside the entries: a handful of keys, overwritten often.

use std::collections::HashMap;

use super::pieces::ChainPiece;
use super::room::Spare as _;
use crate::disk::BLOCK;
use crate::format::piece::{Extent, PIECE_HEADER_BYTES, PIECE_SLOT_BYTES, PieceDesc};

/// Where a value is.
#[derive(Debug)]
pub(crate) enum Value {
    /// In memory, and in the journal.
    Inline(Vec<u8>),
    /// In a piece of its own.
    Out(Box<ChainPiece>),
}

#[derive(Debug)]
pub(crate) struct KeyEntry {
    pub key: Box<[u8]>,
    pub value: Value,
    /// Segment that holds the newest record of it.
    pub seq: u64,
}

/// Keyed values beyond this lie in pieces of their own: a large value must not be carried again and again.
pub(crate) const INLINE_VALUE_BYTES: usize = 4096;
/// A record's overhead in the journal, generously.
const RECORD_OVERHEAD: u64 = 24;
/// Header and table of a piece that holds one value.
const PIECE_OVERHEAD: u64 = (PIECE_HEADER_BYTES + PIECE_SLOT_BYTES) as u64;
/// The longest extent in a descriptor.
const EXTENT_BYTES: u64 = 10;

/// Up to this many keys are looked for one by one: raft keeps two or three.
const FEW: usize = 32;

/// Many keys become few again when no more than this many are left: with one bound for both, the list would be made anew again and again.
const FEW_AGAIN: usize = FEW / 4;

/// The keys of one replica: a list. If they are few, it is all there is, and has no room to spare.
#[derive(Debug)]
pub(crate) enum Keys {
    Few(Box<[KeyEntry]>),
    Many(Box<Many>),
}

// Each of a million replicas has one.
const _: () = assert!(size_of::<Keys>() == size_of::<Box<[KeyEntry]>>());

/// A list too long to be searched one by one, and where each key is in it. Hashed so that nobody can choose keys that collide.
#[derive(Debug, Default)]
pub(crate) struct Many {
    list: Vec<KeyEntry>,
    places: HashMap<Box<[u8]>, usize>,
    /// What they take in the journal: each batch that names the replica asks for it.
    bytes: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl From<Vec<KeyEntry>> for Keys {
    fn from(list: Vec<KeyEntry>) -> Self {
        if list.len() <= FEW {
            return Self::Few(list.into());
        }
        let places = list.iter().enumerate().map(|(i, e)| (e.key.clone(), i)).collect();
        let bytes = list.iter().map(KeyEntry::bytes).sum();
        Self::Many(Box::new(Many { list, places, bytes }))
    }
}

impl Many {
    /// As `Vec::swap_remove`.
    fn remove(&mut self, i: usize) -> KeyEntry {
        let gone = self.list.swap_remove(i);
        self.bytes = self.bytes.saturating_sub(gone.bytes());
        self.places.remove(&gone.key);
        if let Some(place) = self.list.get(i).and_then(|moved| self.places.get_mut(&moved.key)) {
            *place = i;
        }
        self.list.spare();
        self.places.spare();
        gone
    }
}

impl Keys {
    fn list(&self) -> &[KeyEntry] {
        match self {
            Self::Few(list) => list,
            Self::Many(many) => &many.list,
        }
    }

    fn list_mut(&mut self) -> &mut [KeyEntry] {
        match self {
            Self::Few(list) => list,
            Self::Many(many) => &mut many.list,
        }
    }

    fn take(&mut self) -> Vec<KeyEntry> {
        match std::mem::take(self) {
            Self::Few(list) => list.into_vec(),
            Self::Many(many) => many.list,
        }
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        match self {
            Self::Few(list) => list.iter().position(|e| *e.key == *key),
            Self::Many(many) => many.places.get(key).copied(),
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.at(self.find(key)?).map(|e| &e.value)
    }

    pub fn len(&self) -> usize {
        self.list().len()
    }

    pub fn at(&self, i: usize) -> Option<&KeyEntry> {
        self.list().get(i)
    }

    /// Notes that the newest record of the `i`th key lies in this segment now.
    pub fn written_in(&mut self, i: usize, seq: u64) {
        if let Some(entry) = self.list_mut().get_mut(i) {
            entry.seq = seq;
        }
    }

    /// Keeps the keys that `keep` says yes to; `false` if one went.
    pub fn retain(&mut self, keep: impl FnMut(&KeyEntry) -> bool) -> bool {
        let mut list = self.take();
        let before = list.len();
        list.retain(keep);
        let all = list.len() == before;
        *self = list.into();
        all
    }

    pub fn iter(&self) -> impl Iterator<Item = &KeyEntry> {
        self.list().iter()
    }

    /// Stops keeping the bytes of a value's piece in memory.
    pub fn forget_memory(&mut self, id: u64) {
        for entry in self.list_mut() {
            if let Value::Out(piece) = &mut entry.value
                && piece.desc.id == id
            {
                piece.mem = None;
            }
        }
    }

    /// Sets an inline value; one of the same or a smaller size reuses its buffer.
    pub fn put(&mut self, key: &[u8], value: &[u8], seq: u64, freed: &mut Vec<Extent>) {
        let Some(i) = self.find(key) else {
            return self.push(KeyEntry { key: key.into(), value: Value::Inline(value.to_vec()), seq });
        };
        self.change(i, seq, |now| match now {
            Value::Inline(old) => {
                old.clear();
                old.extend_from_slice(value);
            }
            Value::Out(piece) => {
                freed.extend_from_slice(&piece.desc.extents);
                *now = Value::Inline(value.to_vec());
            }
        });
    }

    /// Sets a value that lies in a piece.
    pub fn put_out(&mut self, key: &[u8], piece: ChainPiece, seq: u64, freed: &mut Vec<Extent>) {
        let piece = Box::new(piece);
        let Some(i) = self.find(key) else {
            return self.push(KeyEntry { key: key.into(), value: Value::Out(piece), seq });
        };
        self.change(i, seq, |now| {
            // Carried: the same piece named again keeps its space.
            if let Value::Out(old) = now
                && old.desc.id != piece.desc.id
            {
                freed.extend_from_slice(&old.desc.extents);
            }
            *now = Value::Out(piece);
        });
    }

    pub fn delete(&mut self, key: &[u8], freed: &mut Vec<Extent>) {
        let Some(i) = self.find(key) else { return };
        let gone = match self {
            Self::Many(many) if many.list.len() > FEW_AGAIN => many.remove(i),
            _ => {
                let mut list = self.take();
                let gone = list.swap_remove(i);
                *self = list.into();
                gone
            }
        };
        if let Value::Out(piece) = gone.value {
            freed.extend_from_slice(&piece.desc.extents);
        }
    }

    pub fn clear(&mut self, freed: &mut Vec<Extent>) {
        for entry in self.take() {
            if let Value::Out(piece) = entry.value {
                freed.extend_from_slice(&piece.desc.extents);
            }
        }
    }

    /// What the keys take in the journal when they are carried.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Few(list) => list.iter().map(KeyEntry::bytes).sum(),
            Self::Many(many) => many.bytes,
        }
    }

    /// What a key costs in the journal now; 0 when it is not there.
    pub fn cost(&self, key: &[u8]) -> u64 {
        self.get(key).map_or(0, |value| value.cost(key))
    }

    fn push(&mut self, entry: KeyEntry) {
        if let Self::Many(many) = self {
            many.bytes += entry.bytes();
            many.places.insert(entry.key.clone(), many.list.len());
            many.list.push(entry);
            return;
        }
        let mut list = self.take();
        list.reserve_exact(1);
        list.push(entry);
        *self = list.into();
    }

    /// Changes the `i`th value.
    fn change(&mut self, i: usize, seq: u64, change: impl FnOnce(&mut Value)) {
        let Some(entry) = self.list_mut().get_mut(i) else { return };
        entry.seq = seq;
        let before = entry.bytes();
        change(&mut entry.value);
        let after = entry.bytes();
        if let Self::Many(many) = self {
            many.bytes = many.bytes.saturating_sub(before) + after;
        }
    }
}

impl KeyEntry {
    /// What it takes in the journal when it is carried.
    fn bytes(&self) -> u64 {
        #[cfg(all(test, not(any(loom, shuttle))))]
        tests::LOOKED_AT.set(tests::LOOKED_AT.get() + 1);
        self.key.len() as u64 + self.value.bytes()
    }
}

impl Value {
    /// The piece that holds it.
    pub fn piece(&self) -> Option<&ChainPiece> {
        match self {
            Self::Inline(_) => None,
            Self::Out(piece) => Some(piece),
        }
    }

    /// What it costs in the journal now, with its key.
    pub fn cost(&self, key: &[u8]) -> u64 {
        key.len() as u64 + self.bytes()
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Inline(value) => value.len() as u64 + RECORD_OVERHEAD,
            Self::Out(piece) => out_of_line_cost(u64::from(piece.desc.bytes)),
        }
    }
}

/// What a key with a value of this length costs in the journal at most.
pub(crate) fn value_cost(key: &[u8], bytes: usize) -> u64 {
    let value = if bytes > INLINE_VALUE_BYTES {
        out_of_line_cost(bytes as u64 + PIECE_OVERHEAD)
    } else {
        bytes as u64 + RECORD_OVERHEAD
    };
    key.len() as u64 + value
}

/// What the record of an out-of-line value costs, its key apart: its piece may be in as many extents as it has blocks.
fn out_of_line_cost(piece_bytes: u64) -> u64 {
    RECORD_OVERHEAD + PieceDesc::TYPICAL_BYTES + piece_bytes.div_ceil(BLOCK as u64) * EXTENT_BYTES
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::cell::Cell;
    use std::collections::BTreeMap;

    thread_local! {
        /// How often it was asked what a key takes.
        pub static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
    }

    fn piece(id: u64, bytes: u32) -> ChainPiece {
        let desc = PieceDesc {
            id,
            first: 0,
            count: 1,
            slots: 1,
            bare: false,
            bytes,
            crc: 0,
            terms: smallvec::smallvec![],
            extents: smallvec::smallvec![Extent { block: 1, blocks: bytes.div_ceil(4096) }],
        };
        ChainPiece { desc, meta_seq: 0, mem: None }
    }

    /// Whatever is put and deleted, few keys or many, and back: as a map.
    #[test]
    fn keys_are_found_however_many_there_are() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut keys, mut map, mut freed) = (Keys::default(), BTreeMap::new(), Vec::new());
            for n in 0..2000_u64 {
                // Fewer towards the end of each thousand.
                let key = rng.random_range(0..3 * FEW as u64).to_le_bytes();
                if rng.random_bool(if n % 1000 < 500 { 0.8 } else { 0.3 }) {
                    keys.put(&key, &n.to_le_bytes(), n, &mut freed);
                    map.insert(key, n);
                } else {
                    keys.delete(&key, &mut freed);
                    map.remove(&key);
                }
                if n % 301 == 300 {
                    let all = keys.retain(|e| e.key[0] % 7 != 0);
                    let before = map.len();
                    map.retain(|key, _| key[0] % 7 != 0);
                    assert_eq!(all, map.len() == before);
                }
                assert_eq!(keys.len(), map.len());
                let found = keys.iter().all(|e| map.get(&*e.key) == Some(&e.seq));
                assert!(found && (0..keys.len()).all(|i| keys.at(i).is_some()), "seed {seed}, {n}");
                for (key, n) in &map {
                    assert!(matches!(keys.get(key), Some(Value::Inline(v)) if **v == n.to_le_bytes()), "seed {seed}");
                    assert!(keys.cost(key) > 0);
                }
            }
            keys.clear(&mut freed);
            assert!(keys.len() == 0 && freed.is_empty());
        }
    }

    /// Whatever they are overwritten with.
    #[test]
    fn what_keys_take_is_known_however_they_change() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut keys, mut freed) = (Keys::default(), Vec::new());
            for n in 0..2000_u64 {
                let key = vec![7; rng.random_range(0..3 * FEW)];
                match rng.random_range(0..10) {
                    0..=2 => keys.delete(&key, &mut freed),
                    3 | 4 => keys.put_out(&key, piece(n, rng.random_range(5000..500_000)), n, &mut freed),
                    5 if n % 100 == 0 => drop(keys.retain(|e| e.key.len() % 7 != 0)),
                    _ => keys.put(&key, &vec![1; rng.random_range(0..4000)], n, &mut freed),
                }
                let sum: u64 = keys.iter().map(|e| keys.cost(&e.key)).sum();
                assert_eq!(keys.bytes(), sum, "seed {seed}, {n}");
            }
            assert!(matches!(keys, Keys::Many(_)));
        }
    }

    /// Each batch that names the replica asks, twice.
    #[test]
    fn many_keys_are_not_gone_through_to_know_what_they_take() {
        let (mut keys, mut freed) = (Keys::default(), Vec::new());
        (0..10_000_u64).for_each(|n| keys.put(&n.to_le_bytes(), b"v", 0, &mut freed));
        let before = LOOKED_AT.get();
        for n in 0..1000_u64 {
            keys.put(&n.to_le_bytes(), b"value", 0, &mut freed);
            assert!(keys.bytes() > 0);
        }
        assert!(LOOKED_AT.get() - before < 5000, "{} looks", LOOKED_AT.get() - before);
    }

    #[test]
    fn few_keys_keep_no_memory_of_more() {
        let (mut keys, mut freed) = (Keys::default(), Vec::new());
        (0..10_000_u64).for_each(|n| keys.put(&n.to_le_bytes(), b"v", 0, &mut freed));
        for n in (100..10_000_u64).rev() {
            keys.delete(&n.to_le_bytes(), &mut freed);
        }
        let Keys::Many(many) = &keys else { panic!("a hundred") };
        let (list, places) = (many.list.capacity(), many.places.capacity());
        assert!(list <= 400 && places <= 400, "room for {list} and {places} of 100");
        (5..100_u64).for_each(|n| keys.delete(&n.to_le_bytes(), &mut freed));
        assert!(matches!(&keys, Keys::Few(list) if list.len() == 5));
    }

    /// So many keys of one replica: gone through one by one, and the list made anew for each, they would not end.
    #[test]
    fn many_keys_of_a_replica_come_to_an_end() {
        const MANY: u64 = 400_000;
        let (mut keys, mut freed) = (Keys::default(), Vec::new());
        for round in 0..2_u64 {
            for n in 0..MANY {
                keys.put(&n.to_le_bytes(), b"v", round, &mut freed);
            }
        }
        for n in 0..MANY {
            keys.delete(&n.to_le_bytes(), &mut freed);
        }
        assert_eq!(keys.len(), 0);
    }
}
